"""Compressed memories of sessions: immutable, one for each state event and model."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from ctxmem.stores.schema import metadata

slots = Table(
    "slots",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("maker", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Index(None, "tenant", "session_id", "event_id"),
)
"""Ids of events are in the order of time, and so are a session's memories."""
