"""Tables of the long-term memory, after the fields of `ctxmem.memory`; the tenant stands first in every key."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, LargeBinary, Table, Text

from ctxmem.stores.schema import metadata

memories = Table(
    "memories",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("user_id", "agent_id", "session_id", "text", "speaker", "topic")),
    *(Column(name, Text, nullable=False) for name in ("status", "method")),
    Column("valid_from", Float(53), nullable=False),
    Column("valid_to", Float(53)),
    Column("recorded_at", Float(53), nullable=False),
    Column("invalidated_at", Float(53)),
    Column("expires_at", Float(53)),
    *(Column(name, Text, nullable=False) for name in ("supersedes", "superseded_by")),
    Column("revision", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("metadata", JSON, nullable=False),
    Index(None, "tenant", "user_id", "id"),
    Index(None, "tenant", "user_id", "digest"),
    Index(None, "tenant", "user_id", "topic"),
    Index(None, "tenant", "session_id"),
    Index(None, "tenant", "expires_at"),
)

memory_sources = Table(
    "memory_sources",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("memory_id", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("end", BigInteger, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Index(None, "tenant", "session_id"),
    sqlite_with_rowid=False,
)

memory_changes = Table(
    "memory_changes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("memory_id", Text, nullable=False),
    Column("op", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Index(None, "tenant", "memory_id", "version"),
    sqlite_with_rowid=False,
)
"""What was done to a user's memories, in order; a deletion blanks the words of everything done to that memory."""

memory_heads = Table(
    "memory_heads",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""The version of a user's newest change; whoever holds an index of the memories reads what is newer than its own."""

memory_keys = Table(
    "memory_keys",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("result", LargeBinary, nullable=False),
    Index(None, "tenant", "user_id"),
)
"""Idempotency keys of calls that wrote memories, with the answer they got."""
