"""Erasure of memories: with their user, or with the session that they were taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Table, exists, select

from ctxmem.stores.memory_schema import memories, memory_changes, memory_heads, memory_keys, memory_sources
from ctxmem.stores.reads import chunks


class Gone(Protocol):
    """What an erasure has removed so far."""

    ids: set[str]

    def delete(self, table: Table, where: ColumnElement[bool]) -> int:
        """Delete rows of the tenant; returns how many."""
        ...


def of_user(connection: Connection, tenant: str, user_id: str, gone: Gone) -> None:
    """Erase every memory of a user, its history, and what is known about their calls."""
    theirs = select(memories.c.id).where(memories.c.tenant == tenant, memories.c.user_id == user_id)
    _delete(list(connection.scalars(theirs)), gone)
    for table in (memory_changes, memory_heads, memory_keys):
        gone.delete(table, table.c.user_id == user_id)


def of_sessions(connection: Connection, tenant: str, session_ids: Sequence[str], gone: Gone) -> None:
    """Erase the memories that belong to the sessions, and those that stand on nothing else."""
    sources = memory_sources
    cited = select(sources.c.memory_id).where(sources.c.tenant == tenant, sources.c.session_id.in_(session_ids))
    touched = set(connection.scalars(cited))
    own = select(memories.c.id).where(memories.c.tenant == tenant, memories.c.session_id.in_(session_ids))
    own_ids = set(connection.scalars(own))
    if touched:
        gone.delete(sources, sources.c.session_id.in_(session_ids))
    for some in chunks(sorted(touched - own_ids)):
        stands = exists().where(sources.c.tenant == tenant, sources.c.memory_id == memories.c.id)
        bare = select(memories.c.id).where(memories.c.tenant == tenant, memories.c.id.in_(some), ~stands)
        own_ids.update(connection.scalars(bare))
    _delete(sorted(own_ids), gone)


def _delete(memory_ids: Sequence[str], gone: Gone) -> None:
    for some in chunks(memory_ids):
        gone.ids.update(some)
        gone.delete(memory_sources, memory_sources.c.memory_id.in_(some))
        gone.delete(memory_changes, memory_changes.c.memory_id.in_(some))
        gone.delete(memories, memories.c.id.in_(some))
