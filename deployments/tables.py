"""Which tables does the store have? How they came to be is in deployments/migrations."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

TABLES = MetaData()
DECISIONS = Table(
    "decisions",
    TABLES,
    Column("deployment", String(200), primary_key=True),
    Column("at_s", Double, primary_key=True),
    Column("wanted", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("starting", Integer, nullable=False),
    Column("advice", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JSON, nullable=False),
    Column("one_fewer", JSON(none_as_null=True)),
    Index("decisions_at_s", "at_s"),
)
KEYS = Table(
    "keys",
    TABLES,
    Column("id", String(16), primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("note", Text, nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Column("revoked_s", Double),
    Column("limits", JSON(none_as_null=True)),
    Column("account", String(16)),
    Index("keys_hash", "hash", unique=True),
)
KEYS_VERSION = Table("keys_version", TABLES, Column("number", Integer, nullable=False))
"""One row: how often keys were changed. Each change raises it within its own transaction, so that whoever has read a
number has seen every change up to it."""
USAGE = Table(
    "usage",
    TABLES,
    Column("hour_s", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(63), primary_key=True),
    Column("key", String(16), primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("variant", String(63), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("gpu_s", Double, nullable=False),
)
USAGE_JOURNALS = Table(
    "usage_journals",
    TABLES,
    Column("name", String(64), primary_key=True),
    Column("taken_bytes", BigInteger, nullable=False),
)
"""Up to where each router's journal is in `usage`."""
LEDGER = Table(
    "ledger",
    TABLES,
    Column("tenant", String(63), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("lent", Double, nullable=False),
    Column("begin_s", Double, nullable=False),
)
"""What is lent of budgets."""
LOANS = Table(
    "loans",
    TABLES,
    Column("router", String(16), primary_key=True),
    Column("tenant", String(63), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("had", Double, nullable=False),
    Column("at_s", Double, nullable=False),
)
"""Of budgets, what each router has had of that, and when it said so."""
FILES = Table(
    "files",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Index("files_tenant", "tenant", "created_s"),
)
"""A row is there before the bytes are, and goes after them: nothing lies anywhere that no row knows of."""
BATCHES = Table(
    "batches",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("key", String(16), nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("endpoint", String(64), nullable=False),
    Column("input_file", String(64), nullable=False),
    Column("about", JSON(none_as_null=True)),
    Column("files_kept_s", Double),
    Column("status", String(16), nullable=False),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double, nullable=False),
    Column("in_progress_s", Double),
    Column("cancelling_s", Double),
    Column("finalizing_s", Double),
    Column("ended_s", Double),
    Column("model", Text),
    Column("errors", JSON(none_as_null=True)),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("lines_per_s", Double),
    Column("output_file", String(64)),
    Column("error_file", String(64)),
    Column("owner", String(32), nullable=False),
    Column("lease_s", Double, nullable=False),
    Index("batches_tenant", "tenant", "created_s"),
    Index("batches_status", "status", "lease_s"),
)
"""`owner`: the router that runs it, until `lease_s` by the store's clock."""
BATCH_LINES = Table(
    "batch_lines",
    TABLES,
    Column("batch", String(64), primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("answered", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""What came of each line of a batch that is not in its files yet."""
