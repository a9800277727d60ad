"""Long-term memories: statements, their sources, their history, idempotency keys."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_Kind = sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]


def upgrade() -> None:
    """Create the tables."""
    _memories()
    _sources_and_changes()
    _heads_and_keys()


def _table(name: str, *rest: sa.Column[Any] | sa.Constraint, key: tuple[str, ...], rowid: bool = True) -> None:
    """Create a table keyed by the tenant and `key`."""
    keyed = sa.PrimaryKeyConstraint("tenant", *key, name=f"pk_{name}")
    op.create_table(name, sa.Column("tenant", sa.Text), *rest, keyed, sqlite_with_rowid=rowid)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def _must(name: str, kind: _Kind) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _may(name: str, kind: _Kind) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _memories() -> None:
    _table(
        "memories",
        *(_must(name, sa.Text) for name in ("id", "user_id", "agent_id", "session_id", "text", "speaker", "topic")),
        *(_must(name, sa.Text) for name in ("status", "method")),
        _must("valid_from", sa.Float(53)),
        _may("valid_to", sa.Float(53)),
        _must("recorded_at", sa.Float(53)),
        _may("invalidated_at", sa.Float(53)),
        _may("expires_at", sa.Float(53)),
        *(_must(name, sa.Text) for name in ("supersedes", "superseded_by")),
        _must("revision", sa.BigInteger),
        _must("digest", sa.LargeBinary),
        _must("metadata", sa.JSON),
        key=("id",),
    )
    for column in ("id", "digest", "topic"):
        _index("memories", "tenant", "user_id", column)
    _index("memories", "tenant", "session_id")
    _index("memories", "tenant", "expires_at")


def _sources_and_changes() -> None:
    _table(
        "memory_sources",
        *(_must(name, sa.Text) for name in ("memory_id", "event_id")),
        *(_must(name, sa.BigInteger) for name in ("start", "end")),
        *(_must(name, sa.Text) for name in ("session_id", "sha256")),
        key=("memory_id", "event_id", "start"),
        rowid=False,
    )
    _index("memory_sources", "tenant", "session_id")
    _table(
        "memory_changes",
        _must("user_id", sa.Text),
        _must("version", sa.BigInteger),
        *(_must(name, sa.Text) for name in ("memory_id", "op", "before", "after", "reason")),
        _must("at", sa.Float(53)),
        key=("user_id", "version"),
        rowid=False,
    )
    _index("memory_changes", "tenant", "memory_id", "version")


def _heads_and_keys() -> None:
    _table(
        "memory_heads",
        _must("user_id", sa.Text),
        _must("version", sa.BigInteger),
        key=("user_id",),
        rowid=False,
    )
    _table(
        "memory_keys",
        *(_must(name, sa.Text) for name in ("key", "user_id")),
        *(_must(name, sa.LargeBinary) for name in ("digest", "result")),
        key=("key",),
    )
    _index("memory_keys", "tenant", "user_id")
