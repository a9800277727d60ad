"""Long-term memories in SQL: one batch in one transaction, and reads that see one tenant's rows only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect, Row, Select, delete, func, select, update

from ctxmem.errors import Conflict, InvalidInput
from ctxmem.memory import GENERATION, Memory, MemoryBatch, MemoryChange, Scope, Source
from ctxmem.ports import MemoryStore
from ctxmem.stores import statements
from ctxmem.stores.memory_schema import memories, memory_changes, memory_heads, memory_keys, memory_sources
from ctxmem.stores.reads import chunks
from ctxmem.stores.rows import json_text
from ctxmem.stores.schema import deletions
from ctxmem.stores.writer import Database

_NAMES = tuple(field.name for field in fields(Memory) if field.name != "sources")
_COLUMNS = tuple(memories.c[name] for name in _NAMES)
_SOURCE = tuple(memory_sources.c[field.name] for field in fields(Source))
_CHANGE = tuple(memory_changes.c[field.name] for field in fields(MemoryChange))


class SqlMemories(MemoryStore):
    """A `MemoryStore` beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._commits = database.commits
        self._reading = database.reading
        self._writer = MemoryWriter(database.dialect)

    def apply(self, tenant: str, batch: MemoryBatch) -> Future[MemoryBatch]:
        return self._commits.submit(partial(self._writer.write, tenant=tenant, batch=batch))

    def version(self, tenant: str, user_id: str) -> int:
        with self._reading() as connection:
            return head(connection, tenant, user_id)

    def kept(self, tenant: str, memory_ids: Sequence[str]) -> list[Memory]:
        found: list[Memory] = []
        with self._reading() as connection:
            for some in chunks(memory_ids):
                found += _read(connection, tenant, select(*_COLUMNS).where(memories.c.id.in_(some)))
        return found

    def scoped(self, tenant: str, scope: Scope, *, after: str = "", limit: int = 100) -> list[Memory]:
        query = select(*_COLUMNS).where(memories.c.id > after)
        for name in ("user_id", "agent_id", "session_id"):
            if wanted := getattr(scope, name):
                query = query.where(memories.c[name] == wanted)
        with self._reading() as connection:
            return _read(connection, tenant, query.order_by(memories.c.id).limit(limit))

    def alike(self, tenant: str, user_id: str, digests: Sequence[bytes], topics: Sequence[str]) -> list[Memory]:
        found: dict[str, Memory] = {}
        with self._reading() as connection:
            for column, values in ((memories.c.digest, digests), (memories.c.topic, topics)):
                for some in chunks(values):
                    mine = select(*_COLUMNS).where(memories.c.user_id == user_id, memories.c.status == "active")
                    found |= {one.id: one for one in _read(connection, tenant, mine.where(column.in_(some)))}
        return list(found.values())

    def changes(self, tenant: str, memory_id: str) -> list[MemoryChange]:
        query = select(*_CHANGE).where(memory_changes.c.tenant == tenant, memory_changes.c.memory_id == memory_id)
        with self._reading() as connection:
            return [MemoryChange(*row) for row in connection.execute(query.order_by(memory_changes.c.version))]

    def changed(self, tenant: str, user_id: str, after: int) -> list[str]:
        table = memory_changes
        query = select(table.c.memory_id).where(table.c.tenant == tenant, table.c.user_id == user_id)
        with self._reading() as connection:
            return list(dict.fromkeys(connection.scalars(query.where(table.c.version > after))))

    def replayed(self, tenant: str, key: str, digest: bytes) -> bytes | None:
        with self._reading() as connection:
            return _replayed(connection, tenant, key, digest)


class MemoryWriter:
    """Writes batches in one dialect of SQL, inside the transaction it is given."""

    def __init__(self, dialect: Dialect) -> None:
        self._first = statements.insert_new(dialect, memory_heads)
        self._advance = statements.compare_and_set(dialect, memory_heads, "version")
        self._insert = statements.insert_new(dialect, memories)
        self._replace = statements.compare_and_set(dialect, memories, "revision")
        self._source = statements.insert_new(dialect, memory_sources)
        self._change = statements.insert(dialect, memory_changes)
        self._claim = statements.insert_new(dialect, memory_keys)

    def write(self, connection: Connection, tenant: str, batch: MemoryBatch) -> MemoryBatch:
        """Write the batch; returns it as stored, without rows but with its first result when its key was used before.

        Raises:
            Conflict: somebody else was first, or the key was used for something else.
        """
        if batch.key is not None:
            first = self._claimed(connection, tenant, batch)
            if first is not None:
                return MemoryBatch(batch.user_id, key=batch.key, digest=batch.digest, result=first)
        version = self._move_head(connection, tenant, batch)
        for memory in batch.put:
            self._put(connection, tenant, memory)
            self._cite(connection, tenant, memory.id, memory.sources)
        for memory_id, sources in batch.sources.items():
            self._cite(connection, tenant, memory_id, sources)
        for memory_id, revision in batch.delete.items():
            _delete(connection, tenant, memory_id, revision)
        changes = tuple(replace(change, version=version + i + 1) for i, change in enumerate(batch.changes))
        for change in changes:
            row = {field.name: getattr(change, field.name) for field in fields(MemoryChange)}
            connection.exec_driver_sql(self._change, row | {"tenant": tenant, "user_id": batch.user_id})
        return replace(batch, changes=changes)

    def _claimed(self, connection: Connection, tenant: str, batch: MemoryBatch) -> bytes | None:
        """None when the key was free and is now this batch's; else the answer of the first."""
        claim = {"tenant": tenant, "key": batch.key, "user_id": batch.user_id}
        done = connection.exec_driver_sql(self._claim, claim | {"digest": batch.digest, "result": batch.result})
        if done.rowcount == 1:
            return None
        return _replayed(connection, tenant, batch.key or "", batch.digest) or b""

    def _move_head(self, connection: Connection, tenant: str, batch: MemoryBatch) -> int:
        """Advance the user's version by one for each change; returns what it was."""
        newest = head(connection, tenant, batch.user_id)
        connection.exec_driver_sql(self._first, {"tenant": tenant, "user_id": batch.user_id, "version": newest})
        seen = newest if batch.expected is None else batch.expected
        key = {"own_tenant": tenant, "own_user_id": batch.user_id}
        moved = {"version": seen + len(batch.changes), "expected": seen}
        if connection.exec_driver_sql(self._advance, key | moved).rowcount != 1:
            raise Conflict(f"the memories of user {batch.user_id!r} have changed meanwhile")
        return seen

    def _put(self, connection: Connection, tenant: str, memory: Memory) -> None:
        row: dict[str, Any] = {name: getattr(memory, name) for name in _NAMES}
        try:
            row["metadata"] = json_text(row["metadata"])
        except TypeError as error:
            raise InvalidInput(f"metadata has no JSON form: {error}", param="metadata") from error
        if memory.revision == 1:
            done = connection.exec_driver_sql(self._insert, row | {"tenant": tenant})
        else:
            key = {"own_tenant": tenant, "own_id": row.pop("id"), "expected": memory.revision - 1}
            done = connection.exec_driver_sql(self._replace, row | key)
        if done.rowcount != 1:
            raise Conflict(f"memory {memory.id} is not at revision {memory.revision - 1}")

    def _cite(self, connection: Connection, tenant: str, memory_id: str, sources: Iterable[Source]) -> None:
        for source in sources:
            row = {field.name: getattr(source, field.name) for field in fields(Source)}
            connection.exec_driver_sql(self._source, row | {"tenant": tenant, "memory_id": memory_id})


def head(connection: Connection, tenant: str, user_id: str) -> int:
    """Version of the newest change to a user's memories; where there is none, the one that the first will follow."""
    table = memory_heads
    found = connection.scalar(select(table.c.version).where(table.c.tenant == tenant, table.c.user_id == user_id))
    if found is None:
        mine = deletions.c.tenant == tenant, deletions.c.scope == f"user:{user_id}"
        found = GENERATION * (connection.scalar(select(func.count()).where(*mine)) or 0)
    return int(found)


def _replayed(connection: Connection, tenant: str, key: str, digest: bytes) -> bytes | None:
    kept = connection.execute(
        select(memory_keys.c.digest, memory_keys.c.result).where(
            memory_keys.c.tenant == tenant, memory_keys.c.key == key
        )
    ).first()
    if kept is None:
        return None
    if bytes(kept.digest) != digest:
        raise Conflict(f"idempotency key {key!r} was used for something else")
    return bytes(kept.result)


def _delete(connection: Connection, tenant: str, memory_id: str, revision: int | None) -> None:
    """Remove a memory and its sources, and the words from its history."""
    ours = [memories.c.tenant == tenant, memories.c.id == memory_id]
    if revision is not None:
        ours.append(memories.c.revision == revision)
    if connection.execute(delete(memories).where(*ours)).rowcount != 1:
        raise Conflict(f"memory {memory_id} is not at revision {revision}, or is gone")
    cited = (memory_sources.c.tenant == tenant, memory_sources.c.memory_id == memory_id)
    connection.execute(delete(memory_sources).where(*cited))
    done = (memory_changes.c.tenant == tenant, memory_changes.c.memory_id == memory_id)
    connection.execute(update(memory_changes).where(*done).values(before="", after=""))


def _read(connection: Connection, tenant: str, query: Select[Any]) -> list[Memory]:
    """Run a query for memories of the tenant and add their sources."""
    rows = connection.execute(query.where(memories.c.tenant == tenant)).all()
    sources = _sources(connection, tenant, [row.id for row in rows])
    return [_memory(row, sources.get(row.id, ())) for row in rows]


def _sources(connection: Connection, tenant: str, memory_ids: Sequence[str]) -> dict[str, tuple[Source, ...]]:
    found: dict[str, list[Source]] = {}
    table = memory_sources
    for some in chunks(memory_ids):
        query = select(table.c.memory_id, *_SOURCE).where(table.c.tenant == tenant, table.c.memory_id.in_(some))
        for memory_id, *rest in connection.execute(query.order_by(table.c.event_id, table.c.start)):
            found.setdefault(memory_id, []).append(Source(*rest))
    return {memory_id: tuple(sources) for memory_id, sources in found.items()}


def _memory(row: Row[Any], sources: tuple[Source, ...]) -> Memory:
    kept: dict[str, Any] = dict(row._mapping)
    return Memory(**(kept | {"digest": bytes(kept["digest"])}), sources=sources)
