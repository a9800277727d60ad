"""Tables of graphs' checkpoints, after the fields of `ctxmem.checkpoint`; the tenant stands first in every key."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, Table, Text

from ctxmem.stores.schema import metadata

checkpoints = Table(
    "checkpoints",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "session_id", "namespace", "id")),
    Column("parent_id", Text),
    Column("state_kind", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("metadata_kind", Text, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("channels", JSON, nullable=False),
    Column("needs", JSON, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Index(None, "tenant", "run_id"),
    Index(None, "tenant", "user_id"),
    Index(None, "tenant", "id"),
)

checkpoint_values = Table(
    "checkpoint_values",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "session_id", "sha256")),
    Column("kind", Text, nullable=False),
    Column("codec", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

checkpoint_writes = Table(
    "checkpoint_writes",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "session_id", "namespace", "checkpoint_id")),
    Column("task_id", Text, primary_key=True),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, Text, nullable=False) for name in ("path", "channel", "kind")),
    Column("body", LargeBinary, nullable=False),
)
"""A write may come before its checkpoint."""
