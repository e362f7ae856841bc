"""Where are keys kept? With how often they were changed, which routers look at."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("models", sa.JSON),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("expires_s", sa.Double),
        sa.Column("revoked_s", sa.Double),
    )
    op.create_index("keys_hash", "keys", ["hash"], unique=True)
    version = op.create_table("keys_version", sa.Column("number", sa.Integer, nullable=False))
    op.bulk_insert(version, [{"number": 0}])
