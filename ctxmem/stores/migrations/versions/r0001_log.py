"""The log: sessions, branches, events, ledger, requests, artifacts, idempotency keys, deletions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Kind = sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]


def upgrade() -> None:
    """Create the tables."""
    _sessions()
    _events()
    _ledger()
    _requests()
    _content()
    _receipts()


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


def _sessions() -> None:
    _table(
        "sessions",
        *(_must(name, sa.Text) for name in ("id", "user_id", "agent_id")),
        *(_must(name, sa.BigInteger) for name in ("revision", "events", "turn", "branches")),
        _must("style", sa.Text),
        _must("branch", sa.BigInteger),
        _must("created_at", sa.Float(53)),
        _must("updated_at", sa.Float(53)),
        key=("id",),
    )
    _index("sessions", "tenant", "user_id", "id")
    _table(
        "branches",
        _must("session_id", sa.Text),
        _must("number", sa.BigInteger),
        _may("parent", sa.BigInteger),
        _must("fork_depth", sa.BigInteger),
        _must("fork_turn", sa.BigInteger),
        _may("tip_id", sa.Text),
        _must("tip_chain", sa.LargeBinary),
        _must("depth", sa.BigInteger),
        _must("epoch", sa.BigInteger),
        _must("request_id", sa.Text),
        key=("session_id", "number"),
        rowid=False,
    )


def _events() -> None:
    _table(
        "events",
        _must("id", sa.Text),
        _must("session_id", sa.Text),
        *(_must(name, sa.BigInteger) for name in ("branch", "seq", "depth")),
        _may("parent_id", sa.Text),
        _must("chain", sa.LargeBinary),
        _must("role", sa.Text),
        _must("raw", sa.LargeBinary),
        _must("origin", sa.Text),
        _may("request_id", sa.Text),
        _must("at", sa.Float(53)),
        _must("complete", sa.Boolean),
        _must("raw_sha256", sa.LargeBinary),
        sa.UniqueConstraint("tenant", "session_id", "seq", name="uq_events_tenant_session_id_seq"),
        sa.UniqueConstraint("tenant", "session_id", "chain", name="uq_events_tenant_session_id_chain"),
        key=("id",),
    )
    _index("events", "tenant", "chain", "id")
    _index("events", "tenant", "session_id", "branch", "depth")


def _ledger() -> None:
    _table(
        "ledger",
        _must("session_id", sa.Text),
        _must("branch", sa.BigInteger),
        _must("turn", sa.BigInteger),
        _must("event_id", sa.Text),
        *(_must(name, sa.Text) for name in ("decision", "stage", "reason")),
        *(_must(name, sa.BigInteger) for name in ("tokens_before", "tokens_after")),
        _may("rendered", sa.LargeBinary),
        key=("session_id", "branch", "turn", "event_id"),
        rowid=False,
    )


def _requests() -> None:
    _table(
        "requests",
        *(_must(name, sa.Text) for name in ("id", "session_id")),
        *(_must(name, sa.BigInteger) for name in ("branch", "turn", "depth", "epoch")),
        _must("model", sa.Text),
        _must("exact", sa.Boolean),
        *(_must(name, sa.Text) for name in ("mode", "policy")),
        *(_must(name, sa.BigInteger) for name in ("limit", "reserve", "tokens")),
        _must("parts", sa.JSON),
        _must("stable_prefix", sa.BigInteger),
        *(_must(name, sa.Text) for name in ("action", "reason", "tools_sha", "rendered_sha", "status")),
        _may("reply_id", sa.Text),
        _must("usage", sa.JSON),
        _must("timings", sa.JSON),
        _must("at", sa.Float(53)),
        key=("id",),
    )
    _index("requests", "tenant", "session_id", "id")


def _content() -> None:
    _table(
        "artifacts",
        _must("sha256", sa.Text),
        _must("codec", sa.Text),
        _must("content", sa.LargeBinary),
        key=("sha256",),
    )
    _table(
        "artifact_uses",
        _must("sha256", sa.Text),
        _must("session_id", sa.Text),
        key=("sha256", "session_id"),
        rowid=False,
    )
    _index("artifact_uses", "tenant", "session_id")


def _receipts() -> None:
    _table(
        "idempotency",
        *(_must(name, sa.Text) for name in ("key", "session_id")),
        *(_must(name, sa.LargeBinary) for name in ("digest", "batch")),
        key=("key",),
    )
    _index("idempotency", "tenant", "session_id")
    _table(
        "deletions",
        *(_must(name, sa.Text) for name in ("id", "scope")),
        _must("counts", sa.JSON),
        _must("ids_sha256", sa.Text),
        _must("at", sa.Float(53)),
        key=("id",),
    )
