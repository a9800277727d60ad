"""Documents, their chunks and vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "shelves",
        *_key("shelves", "namespace"),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
    )
    op.create_table(
        "documents",
        *_key("documents", "namespace", "id"),
        *_texts("text", "kind", "title", "sha256", "user_id", "session_id"),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "chunks",
        *_key("chunks", "namespace", "id"),
        *_texts("document_id"),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("seq", "start", "end")),
        *_texts("text", "lead", "fingerprint"),
        sa.Column("vector", sa.LargeBinary, nullable=True),
    )
    _index("documents", "tenant", "user_id")
    _index("documents", "tenant", "session_id")
    _index("chunks", "tenant", "namespace", "document_id")
    _index("chunks", "tenant", "namespace", "fingerprint")


def _key(table: str, *names: str) -> list[sa.Column[str] | sa.PrimaryKeyConstraint]:
    """The columns of a table's key, the tenant first, and the key."""
    keyed = sa.PrimaryKeyConstraint("tenant", *names, name=f"pk_{table}")
    return [*(sa.Column(name, sa.Text) for name in ("tenant", *names)), keyed]


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
