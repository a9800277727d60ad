"""Compressed memories of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "slots",
        sa.Column("tenant", sa.Text),
        sa.Column("event_id", sa.Text),
        sa.Column("maker", sa.Text),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "event_id", "maker", name="pk_slots"),
    )
    op.create_index("ix_slots_tenant_session_id_event_id", "slots", ["tenant", "session_id", "event_id"])
