"""What is the first table? Scale decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes it."""
    op.create_table(
        "decisions",
        sa.Column("deployment", sa.String(200), primary_key=True),
        sa.Column("at_s", sa.Double, primary_key=True),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("starting", sa.Integer, nullable=False),
        sa.Column("advice", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
        sa.Column("one_fewer", sa.JSON),
    )
    op.create_index("decisions_at_s", "decisions", ["at_s"])
