"""Where is usage kept? By the hour, with how much of each router's journal is in it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "usage",
        sa.Column("hour_s", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("key", sa.String(16), primary_key=True),
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("variant", sa.String(63), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("gpu_s", sa.Double, nullable=False),
    )
    op.create_table(
        "usage_journals",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("taken_bytes", sa.BigInteger, nullable=False),
    )
