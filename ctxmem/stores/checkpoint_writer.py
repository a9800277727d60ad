"""Writing checkpoints, inside the transaction that is given. A thread's writers come one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Table, delete, literal, select

from ctxmem.checkpoint import Checkpoint, CheckpointKey, Packed, PendingWrite
from ctxmem.stores import statements
from ctxmem.stores.artifacts import hold_tenant, pack
from ctxmem.stores.checkpoint_schema import checkpoint_values, checkpoint_writes, checkpoints
from ctxmem.stores.reads import chunks
from ctxmem.stores.rows import json_text

TABLES = (checkpoints, checkpoint_values, checkpoint_writes)
_PARENTS = (
    checkpoints.c.namespace,
    checkpoints.c.id,
    checkpoints.c.parent_id,
    checkpoints.c.channels,
    checkpoints.c.needs,
)


class CheckpointWriter:
    """Writes checkpoints in one dialect of SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self._has_row_locks = dialect.name == "postgresql"
        self._checkpoint = statements.upsert(dialect, checkpoints)
        self._value = statements.insert_new(dialect, checkpoint_values)
        self._new_write = statements.insert_new(dialect, checkpoint_writes)
        self._write = statements.upsert(dialect, checkpoint_writes)
        self._copies = {table: statements.insert_new_from(dialect, table) for table in TABLES}

    def put(self, connection: Connection, tenant: str, checkpoint: Checkpoint, values: Mapping[str, Packed]) -> None:
        """Write a checkpoint and what its channels held."""
        key = checkpoint.key
        self._hold(connection, tenant, [key.session_id])
        for sha256, value in values.items():
            codec, body = pack(value.body)
            row = {"tenant": tenant, "session_id": key.session_id, "sha256": sha256, "kind": value.kind}
            connection.exec_driver_sql(self._value, row | {"codec": codec, "body": body})
        made: dict[str, Any] = {
            **key._asdict(),
            "tenant": tenant,
            "parent_id": checkpoint.parent_id,
            "state_kind": checkpoint.state.kind,
            "state": checkpoint.state.body,
            "metadata_kind": checkpoint.metadata.kind,
            "metadata": checkpoint.metadata.body,
            "channels": json_text(checkpoint.channels),
            "needs": json.dumps(checkpoint.needs),
            "run_id": checkpoint.run_id,
            "user_id": checkpoint.user_id,
        }
        connection.exec_driver_sql(self._checkpoint, made)

    def put_writes(
        self, connection: Connection, tenant: str, key: CheckpointKey, writes: Sequence[PendingWrite]
    ) -> None:
        """Write what a task wrote."""
        self._hold(connection, tenant, [key.session_id])
        head: dict[str, Any] = {"tenant": tenant, "session_id": key.session_id, "namespace": key.namespace}
        head["checkpoint_id"] = key.id
        for write in writes:
            row = head | {"task_id": write.task_id, "place": write.place, "path": write.path}
            row |= {"channel": write.channel, "kind": write.value.kind, "body": write.value.body}
            connection.exec_driver_sql(self._new_write if write.place >= 0 else self._write, row)

    def delete(self, connection: Connection, tenant: str, session_ids: Sequence[str]) -> None:
        """Delete whole threads."""
        self._hold(connection, tenant, session_ids)
        for some in chunks(session_ids):
            for table in TABLES:
                connection.execute(delete(table).where(table.c.tenant == tenant, table.c.session_id.in_(some)))

    def delete_runs(self, connection: Connection, tenant: str, run_ids: Sequence[str]) -> None:
        """Delete what runs made."""
        table = checkpoints
        made = [table.c.tenant == tenant, table.c.run_id != ""]
        keys = select(table.c.id, table.c.session_id, table.c.namespace).where(*made)
        found = [
            CheckpointKey(*row)
            for some in chunks(run_ids)
            for row in connection.execute(keys.where(table.c.run_id.in_(some)))
        ]
        threads = sorted({key.session_id for key in found})
        self._hold(connection, tenant, threads)
        self._remove(connection, tenant, found)
        for thread in threads:
            self._forget_values(connection, tenant, thread)

    def copy(self, connection: Connection, tenant: str, source: str, target: str) -> None:
        """Copy a thread's rows under another name."""
        self._hold(connection, tenant, [source, target])
        for table, insert in self._copies.items():
            columns = [literal(target) if column.name == "session_id" else column for column in table.c]
            rows = select(*columns).where(table.c.tenant == tenant, table.c.session_id == source)
            connection.execute(insert(rows))

    def prune(self, connection: Connection, tenant: str, session_ids: Sequence[str]) -> None:
        """Keep the newest checkpoints, and what they need."""
        self._hold(connection, tenant, session_ids)
        for thread in dict.fromkeys(session_ids):
            ours = (checkpoints.c.tenant == tenant, checkpoints.c.session_id == thread)
            rows = connection.execute(select(*_PARENTS).where(*ours)).all()
            kept = _kept(rows)
            gone = [(row.namespace, row.id) for row in rows if (row.namespace, row.id) not in kept]
            self._remove(connection, tenant, [CheckpointKey(id, thread, namespace) for namespace, id in gone])
            self._forget_values(connection, tenant, thread)

    def _hold(self, connection: Connection, tenant: str, session_ids: Sequence[str]) -> None:
        """PostgreSQL: make the threads' other writers wait until the transaction ends."""
        if not self._has_row_locks:
            return
        hold_tenant(connection, tenant, shared=True)
        lock = "SELECT pg_advisory_xact_lock(hashtext(%(tenant)s), hashtext(%(session_id)s))"
        for session_id in sorted(set(session_ids)):
            connection.exec_driver_sql(lock, {"tenant": tenant, "session_id": session_id})

    def _remove(self, connection: Connection, tenant: str, keys: Iterable[CheckpointKey]) -> None:
        for key in keys:
            for table, id in ((checkpoints, checkpoints.c.id), (checkpoint_writes, checkpoint_writes.c.checkpoint_id)):
                place = (*_thread(table, tenant, key.session_id), table.c.namespace == key.namespace, id == key.id)
                connection.execute(delete(table).where(*place))

    def _forget_values(self, connection: Connection, tenant: str, session_id: str) -> None:
        """Delete the values that no checkpoint of the thread names any more."""
        named = connection.scalars(select(checkpoints.c.channels).where(*_thread(checkpoints, tenant, session_id)))
        used = {sha256 for channels in named for sha256 in channels.values()}
        ours = _thread(checkpoint_values, tenant, session_id)
        kept = connection.scalars(select(checkpoint_values.c.sha256).where(*ours))
        for some in chunks(sorted(set(kept) - used)):
            connection.execute(delete(checkpoint_values).where(*ours, checkpoint_values.c.sha256.in_(some)))


def _thread(table: Table, tenant: str, session_id: str) -> tuple[Any, Any]:
    return table.c.tenant == tenant, table.c.session_id == session_id


def _kept(rows: Sequence[Any]) -> set[tuple[str, str]]:
    """Namespace and id of the newest checkpoints and, while a channel's value is missing, of those before them."""
    by_name = {(row.namespace, row.id): row for row in rows}
    newest: dict[str, str] = {}
    for row in rows:
        newest[row.namespace] = max(row.id, newest.get(row.namespace, ""))
    kept = set(newest.items())
    for name in list(kept):
        row, missing = by_name[name], set(by_name[name].needs)
        while missing and (row := by_name.get((row.namespace, row.parent_id))) is not None:
            kept.add((row.namespace, row.id))
            missing -= set(row.channels)
    return kept
