"""Tables of the log. Columns are named and ordered like the fields of `ctxmem.records`, after the tenant.

The tenant stands first in every primary key and every index: a query that forgot it would find nothing it can use.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

HEAD = "0008"
"""Revision of `migrations` that these tables are at."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _key(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True)


def _number_key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=nullable)


def _seconds(name: str) -> Column[float]:
    return Column(name, Float(53), nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _json(name: str) -> Column[Any]:
    return Column(name, JSON, nullable=False)


sessions = Table(
    "sessions",
    metadata,
    _key("tenant"),
    _key("id"),
    _text("user_id"),
    _text("agent_id"),
    _number("revision"),
    _number("events"),
    _number("turn"),
    _number("branches"),
    _text("style"),
    _number("branch"),
    _seconds("created_at"),
    _seconds("updated_at"),
    Index(None, "tenant", "user_id", "id"),
)

branches = Table(
    "branches",
    metadata,
    _key("tenant"),
    _key("session_id"),
    _number_key("number"),
    _number("parent", nullable=True),
    _number("fork_depth"),
    _number("fork_turn"),
    _text("tip_id", nullable=True),
    _bytes("tip_chain"),
    _number("depth"),
    _number("epoch"),
    _text("request_id"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    _key("tenant"),
    _key("id"),
    _text("session_id"),
    _number("branch"),
    _number("seq"),
    _number("depth"),
    _text("parent_id", nullable=True),
    _bytes("chain"),
    _text("role"),
    _bytes("raw"),
    _text("origin"),
    _text("request_id", nullable=True),
    _seconds("at"),
    _flag("complete"),
    _bytes("raw_sha256"),
    UniqueConstraint("tenant", "session_id", "seq"),
    UniqueConstraint("tenant", "session_id", "chain"),
    Index(None, "tenant", "chain", "id"),
    Index(None, "tenant", "session_id", "branch", "depth"),
)

ledger = Table(
    "ledger",
    metadata,
    _key("tenant"),
    _key("session_id"),
    _number_key("branch"),
    _number_key("turn"),
    _key("event_id"),
    _text("decision"),
    _text("stage"),
    _text("reason"),
    _number("tokens_before"),
    _number("tokens_after"),
    _bytes("rendered", nullable=True),
    Column("seat", Float(53), nullable=True),
    _text("into", nullable=True),
    sqlite_with_rowid=False,
)

requests = Table(
    "requests",
    metadata,
    _key("tenant"),
    _key("id"),
    _text("session_id"),
    _number("branch"),
    _number("turn"),
    _number("depth"),
    _number("epoch"),
    _text("model"),
    _flag("exact"),
    _text("mode"),
    _text("policy"),
    _number("limit"),
    _number("reserve"),
    _number("tokens"),
    _json("parts"),
    _number("stable_prefix"),
    _text("action"),
    _text("reason"),
    _text("tools_sha"),
    _text("rendered_sha"),
    _text("status"),
    _text("reply_id", nullable=True),
    _json("usage"),
    _json("timings"),
    _seconds("at"),
    Index(None, "tenant", "session_id", "id"),
)

artifacts = Table(
    "artifacts",
    metadata,
    _key("tenant"),
    _key("sha256"),
    _text("codec"),
    _bytes("content"),
)

artifact_uses = Table(
    "artifact_uses",
    metadata,
    _key("tenant"),
    _key("sha256"),
    _key("session_id"),
    Index(None, "tenant", "session_id"),
    sqlite_with_rowid=False,
)
"""Which session brought an artifact; the session is empty for content kept for its own sake, which no session takes."""

idempotency = Table(
    "idempotency",
    metadata,
    _key("tenant"),
    _key("key"),
    _text("session_id"),
    _bytes("digest"),
    _bytes("batch"),
    Index(None, "tenant", "session_id"),
)

deletions = Table(
    "deletions",
    metadata,
    _key("tenant"),
    _key("id"),
    _text("scope"),
    _json("counts"),
    _text("ids_sha256"),
    _seconds("at"),
)
