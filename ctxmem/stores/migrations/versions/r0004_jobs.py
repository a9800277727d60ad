"""The outbox of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "jobs",
        sa.Column("tenant", sa.Text),
        sa.Column("id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("run_at", sa.Float(53), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_jobs"),
        sa.UniqueConstraint("tenant", "kind", "key", name="uq_jobs_tenant_kind_key"),
    )
    for columns in (["tenant", "state", "run_at"], ["tenant", "session_id"], ["tenant", "user_id"]):
        op.create_index(f"ix_jobs_{'_'.join(columns)}", "jobs", columns)
