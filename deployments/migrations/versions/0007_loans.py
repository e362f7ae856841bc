"""Where is kept which router has what was lent of budgets?"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Makes it. What is lent now is of no router that is known, and stays lent."""
    op.create_table(
        "loans",
        sa.Column("router", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("had", sa.Double, nullable=False),
        sa.Column("at_s", sa.Double, nullable=False),
    )
