"""The outbox: columns are named and ordered like the fields of `Job`, after the tenant."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Table, Text, UniqueConstraint

from ctxmem.stores.schema import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("key", Text),
    Column("state", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("run_at", Float(53), nullable=False),
    Column("at", Float(53), nullable=False),
    Index(None, "tenant", "state", "run_at"),
    Index(None, "tenant", "session_id"),
    Index(None, "tenant", "user_id"),
    UniqueConstraint("tenant", "kind", "key"),
)
"""Workers look across tenants for what is due; what is done is soon deleted, so there is little to look at."""
