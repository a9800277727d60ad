"""Writing one batch: a few statements inside the transaction they are given."""

from __future__ import annotations

from sqlalchemy import Connection, Dialect, bindparam, select

from ctxmem.errors import Conflict
from ctxmem.records import Batch, Event, Session
from ctxmem.stores import reads, rows, schema, statements
from ctxmem.stores.artifacts import ArtifactWriter
from ctxmem.stores.jobs import JobWriter

_keys = schema.idempotency
_find = select(_keys.c.digest, _keys.c.batch).where(
    _keys.c.tenant == bindparam("tenant"), _keys.c.key == bindparam("key")
)


class BatchWriter:
    """Writes batches in one dialect of SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self._create = statements.insert_new(dialect, schema.sessions)
        self._advance = statements.compare_and_set(dialect, schema.sessions, "revision")
        self._branch = statements.upsert(dialect, schema.branches)
        self._event = statements.insert(dialect, schema.events)
        self._entry = statements.insert(dialect, schema.ledger)
        self._request = statements.upsert(dialect, schema.requests)
        self._claim = statements.insert_new(dialect, schema.idempotency)
        self._jobs = JobWriter(dialect)
        self.artifacts = ArtifactWriter(dialect)

    def write(self, connection: Connection, tenant: str, batch: Batch) -> Batch:
        """Write the batch; returns the batch as stored, which is the first one when its key was used before.

        Raises:
            Conflict: the session is at another revision, or the key was used for something else.
        """
        if batch.artifacts:
            self.artifacts.hold(connection, tenant)
        if batch.idempotency_key is not None and not self._claimed(connection, tenant, batch):
            return _first(connection, tenant, batch)
        self._move_head(connection, tenant, batch.session, batch.expected)
        if batch.branch is not None:
            connection.exec_driver_sql(self._branch, rows.values(tenant, batch.branch))
        if batch.events:
            connection.exec_driver_sql(self._event, [rows.event_values(tenant, event) for event in batch.events])
        if batch.entries:
            connection.exec_driver_sql(self._entry, [rows.values(tenant, entry) for entry in batch.entries])
        if batch.request is not None:
            connection.exec_driver_sql(self._request, rows.request_values(tenant, batch.request))
        self._jobs.add(connection, tenant, batch.jobs)
        for sha256, content in batch.artifacts.items():
            self.artifacts.keep(connection, tenant, sha256, content, session_id=batch.session.id)
        return batch

    def _claimed(self, connection: Connection, tenant: str, batch: Batch) -> bool:
        """Whether the key was free and is now this batch's; a second writer of the key waits here for the first."""
        claim = {
            "tenant": tenant,
            "key": batch.idempotency_key,
            "session_id": batch.session.id,
            "digest": rows.said(batch),
            "batch": rows.pack(batch),
        }
        return connection.exec_driver_sql(self._claim, claim).rowcount == 1

    def _move_head(self, connection: Connection, tenant: str, head: Session, expected: int) -> None:
        row = rows.values(tenant, head)
        if expected == 0:
            done = connection.exec_driver_sql(self._create, row)
        else:
            row |= {"own_tenant": tenant, "own_id": row.pop("id"), "expected": expected}
            del row["tenant"]
            done = connection.exec_driver_sql(self._advance, row)
        if done.rowcount != 1:
            raise Conflict(f"session {head.id!r} is not at revision {expected}")


def _first(connection: Connection, tenant: str, batch: Batch) -> Batch:
    """The batch that used the key first.

    Raises:
        Conflict: it said something else.
    """
    kept = connection.execute(_find, {"tenant": tenant, "key": batch.idempotency_key}).first()
    if kept is None or bytes(kept.digest) != rows.said(batch):
        raise Conflict(f"idempotency key {batch.idempotency_key!r} was used for something else")
    found: dict[str, Event] = {
        event.id: event for event in reads.events_by_id(connection, tenant, rows.packed_ids(kept.batch))
    }
    return rows.unpack(kept.batch, found)
