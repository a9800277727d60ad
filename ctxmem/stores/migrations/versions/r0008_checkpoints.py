"""Checkpoints of graphs, what their channels held, and what their tasks wrote."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "checkpoints",
        *_key("checkpoints", "session_id", "namespace", "id"),
        sa.Column("parent_id", sa.Text, nullable=True),
        *_texts("state_kind"),
        sa.Column("state", sa.LargeBinary, nullable=False),
        *_texts("metadata_kind"),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("channels", "needs")),
        *_texts("run_id", "user_id"),
    )
    op.create_table(
        "checkpoint_values",
        *_key("checkpoint_values", "session_id", "sha256"),
        *_texts("kind", "codec"),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    key = ("tenant", "session_id", "namespace", "checkpoint_id", "task_id", "place")
    op.create_table(
        "checkpoint_writes",
        *(sa.Column(name, sa.Text) for name in key[:-1]),
        sa.Column("place", sa.BigInteger, autoincrement=False),
        *_texts("path", "channel", "kind"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint(*key, name="pk_checkpoint_writes"),
    )
    for column in ("run_id", "user_id", "id"):
        op.create_index(f"ix_checkpoints_tenant_{column}", "checkpoints", ["tenant", column])


def _key(table: str, *names: str) -> list[sa.Column[str] | sa.PrimaryKeyConstraint]:
    """The columns of a table's key, the tenant first, and the key."""
    keyed = sa.PrimaryKeyConstraint("tenant", *names, name=f"pk_{table}")
    return [*(sa.Column(name, sa.Text) for name in ("tenant", *names)), keyed]


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
