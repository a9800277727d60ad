"""Folders of named values."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "folders",
        sa.Column("tenant", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_folders"),
    )
    op.create_table(
        "folder_items",
        sa.Column("tenant", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "key", name="pk_folder_items"),
    )
    op.create_index("ix_folders_tenant_user_id", "folders", ["tenant", "user_id"])
