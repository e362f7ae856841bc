"""Where is kept what was lent of budgets?"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Makes it."""
    op.create_table(
        "ledger",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("lent", sa.Double, nullable=False),
        sa.Column("begin_s", sa.Double, nullable=False),
    )
