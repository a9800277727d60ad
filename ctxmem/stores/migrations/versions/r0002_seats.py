"""Ledger entries say where an event stands that ctxmem put in, and which event stands for one that was folded."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("ledger", sa.Column("seat", sa.Float(53), nullable=True))
    op.add_column("ledger", sa.Column("into", sa.Text, nullable=True))
