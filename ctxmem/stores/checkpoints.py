"""Graphs' checkpoints in SQL: each write is one transaction, and a checkpoint is read as of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, select, tuple_

from ctxmem.checkpoint import Asked, Checkpoint, CheckpointKey, Packed, PendingWrite, Saved
from ctxmem.ports import Checkpoints
from ctxmem.stores.artifacts import unpack
from ctxmem.stores.checkpoint_schema import checkpoint_values, checkpoint_writes, checkpoints
from ctxmem.stores.checkpoint_writer import CheckpointWriter
from ctxmem.stores.engine import one_moment
from ctxmem.stores.reads import chunks
from ctxmem.stores.writer import Database

_NEWEST_FIRST = (checkpoints.c.id, checkpoints.c.session_id, checkpoints.c.namespace)


class SqlCheckpoints(Checkpoints):
    """`Checkpoints` beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._writer = CheckpointWriter(database.dialect)
        self._commits = database.commits
        self._reading = database.reading

    def put(self, tenant: str, checkpoint: Checkpoint, values: Mapping[str, Packed]) -> Future[None]:
        return self._commits.submit(partial(self._writer.put, tenant=tenant, checkpoint=checkpoint, values=values))

    def put_writes(self, tenant: str, key: CheckpointKey, writes: Sequence[PendingWrite]) -> Future[None]:
        return self._commits.submit(partial(self._writer.put_writes, tenant=tenant, key=key, writes=writes))

    def get(self, tenant: str, session_id: str, namespace: str, id: str | None = None) -> Saved | None:
        asked = Asked(session_id, namespace, id)
        with self._reading() as connection, one_moment(connection):
            row = connection.execute(_query(tenant, asked).limit(1)).first()
            if row is None:
                return None
            found = _checkpoint(row)
            return Saved(found, _values(connection, tenant, found), _writes(connection, tenant, found.key))

    def find(self, tenant: str, asked: Asked, *, limit: int) -> list[Checkpoint]:
        with self._reading() as connection:
            return [_checkpoint(row) for row in connection.execute(_query(tenant, asked).limit(limit))]

    def delete(self, tenant: str, session_ids: Sequence[str]) -> Future[None]:
        return self._commits.submit(partial(self._writer.delete, tenant=tenant, session_ids=session_ids))

    def delete_runs(self, tenant: str, run_ids: Sequence[str]) -> Future[None]:
        return self._commits.submit(partial(self._writer.delete_runs, tenant=tenant, run_ids=run_ids))

    def copy(self, tenant: str, source: str, target: str) -> Future[None]:
        return self._commits.submit(partial(self._writer.copy, tenant=tenant, source=source, target=target))

    def prune(self, tenant: str, session_ids: Sequence[str]) -> Future[None]:
        return self._commits.submit(partial(self._writer.prune, tenant=tenant, session_ids=session_ids))


def _query(tenant: str, asked: Asked) -> Select[Any]:
    query = select(checkpoints).where(checkpoints.c.tenant == tenant)
    for name in ("session_id", "namespace", "id"):
        wanted = getattr(asked, name)
        if wanted is not None:
            query = query.where(checkpoints.c[name] == wanted)
    if asked.before is not None:
        query = query.where(checkpoints.c.id < asked.before)
    if asked.after is not None:
        query = query.where(tuple_(*_NEWEST_FIRST) < tuple_(*asked.after))
    return query.order_by(*(column.desc() for column in _NEWEST_FIRST))


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(
        CheckpointKey(row.id, row.session_id, row.namespace),
        row.parent_id,
        Packed(row.state_kind, bytes(row.state)),
        Packed(row.metadata_kind, bytes(row.metadata)),
        row.channels,
        tuple(row.needs),
        row.run_id,
        row.user_id,
    )


def _values(connection: Connection, tenant: str, checkpoint: Checkpoint) -> dict[str, Packed]:
    table, found = checkpoint_values, {}
    ours = (table.c.tenant == tenant, table.c.session_id == checkpoint.key.session_id)
    query = select(table.c.sha256, table.c.kind, table.c.codec, table.c.body).where(*ours)
    for some in chunks(set(checkpoint.channels.values())):
        for row in connection.execute(query.where(table.c.sha256.in_(some))):
            found[row.sha256] = Packed(row.kind, unpack(row.codec, row.body))
    return found


def _writes(connection: Connection, tenant: str, key: CheckpointKey) -> tuple[PendingWrite, ...]:
    table = checkpoint_writes
    query = select(table).where(table.c.tenant == tenant, table.c.session_id == key.session_id)
    query = query.where(table.c.namespace == key.namespace, table.c.checkpoint_id == key.id)
    found = [
        PendingWrite(row.task_id, row.place, row.path, row.channel, Packed(row.kind, bytes(row.body)))
        for row in connection.execute(query)
    ]
    return tuple(sorted(found, key=lambda write: (write.path, write.task_id, write.place)))
