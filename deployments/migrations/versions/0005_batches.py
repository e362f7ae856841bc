"""Where are files and batches kept, and what came of the lines of batches that run?"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Makes the three tables."""
    op.create_table(
        "files",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("expires_s", sa.Double),
    )
    op.create_index("files_tenant", "files", ["tenant", "created_s"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("key", sa.String(16), nullable=False),
        sa.Column("models", sa.JSON),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("input_file", sa.String(64), nullable=False),
        sa.Column("about", sa.JSON),
        sa.Column("files_kept_s", sa.Double),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("expires_s", sa.Double, nullable=False),
        *(sa.Column(f"{name}_s", sa.Double) for name in ("in_progress", "cancelling", "finalizing", "ended")),
        sa.Column("model", sa.Text),
        sa.Column("errors", sa.JSON),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("total", "completed", "failed")),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("input_tokens", "cached_tokens", "output_tokens")
        ),
        sa.Column("lines_per_s", sa.Double),
        sa.Column("output_file", sa.String(64)),
        sa.Column("error_file", sa.String(64)),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("lease_s", sa.Double, nullable=False),
    )
    op.create_index("batches_tenant", "batches", ["tenant", "created_s"])
    op.create_index("batches_status", "batches", ["status", "lease_s"])
    op.create_table(
        "batch_lines",
        sa.Column("batch", sa.String(64), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
