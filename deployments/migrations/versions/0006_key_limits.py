"""Where are limits of a key kept? Beside it, with whose account they are counted on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Keys that are there have none."""
    op.add_column("keys", sa.Column("limits", sa.JSON))
    op.add_column("keys", sa.Column("account", sa.String(16)))
