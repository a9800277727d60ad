"""Erasure: every row of a session or a user, and a receipt that says how many and which without saying what."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, insert, select

from ctxmem.ids import new_id
from ctxmem.records import Erasure
from ctxmem.stores import document_erase, folders, memory_erase, schema
from ctxmem.stores.artifacts import hold_tenant
from ctxmem.stores.checkpoint_schema import checkpoint_values, checkpoint_writes, checkpoints
from ctxmem.stores.job_schema import jobs
from ctxmem.stores.reads import chunks
from ctxmem.stores.slot_schema import slots

_OF_A_SESSION = (
    schema.events,
    schema.requests,
    schema.branches,
    schema.ledger,
    schema.artifact_uses,
    schema.idempotency,
    jobs,
    slots,
    checkpoints,
    checkpoint_values,
    checkpoint_writes,
)


def erase_session(connection: Connection, tenant: str, session_id: str) -> Erasure:
    """Erase one session."""
    return _erase(connection, tenant, f"session:{session_id}", [session_id])


def erase_user(connection: Connection, tenant: str, user_id: str) -> Erasure:
    """Erase all of a user: sessions, memories, documents, folders, jobs."""
    table = schema.sessions
    theirs = select(table.c.id).where(table.c.tenant == tenant, table.c.user_id == user_id)
    threads = select(checkpoints.c.session_id).where(checkpoints.c.tenant == tenant, checkpoints.c.user_id == user_id)
    found = list(connection.scalars(theirs.union(threads)))
    found += _scopes(connection, tenant, found)
    return _erase(connection, tenant, f"user:{user_id}", found, user_id=user_id)


def _scopes(connection: Connection, tenant: str, session_ids: Sequence[str]) -> Iterator[str]:
    """Sessions of isolated scopes that nobody owns: they were opened before the session they serve had a user."""
    table = schema.sessions
    nobodys = select(table.c.id).where(table.c.tenant == tenant, table.c.user_id == "", table.c.id.contains("~f"))
    theirs = set(session_ids)
    for name in connection.scalars(nobodys):
        before, _, after = name.partition("~f")
        while after and before not in theirs:
            step, _, after = after.partition("~f")
            before = f"{before}~f{step}"
        if after and all(step.isdigit() for step in after.split("~f")):
            yield name


def _erase(
    connection: Connection, tenant: str, scope: str, session_ids: Sequence[str], *, user_id: str = ""
) -> Erasure:
    """Erase sessions, heads first: once its head is gone no writer can add to a session."""
    if connection.dialect.name == "postgresql":
        hold_tenant(connection, tenant, shared=False)
    gone = _Gone(connection, tenant)
    for some in chunks(session_ids):
        gone.ids.update(some if gone.delete(schema.sessions, schema.sessions.c.id.in_(some)) else ())
    for some in chunks(session_ids):
        gone.ids.update(gone.column(schema.events.c.id, some), gone.column(schema.requests.c.id, some))
        brought = gone.column(schema.artifact_uses.c.sha256, some)
        for table in _OF_A_SESSION:
            gone.delete(table, table.c.session_id.in_(some))
        memory_erase.of_sessions(connection, tenant, some, gone)
        document_erase.of_sessions(connection, tenant, some, gone)
        gone.orphans(brought)
    if user_id:
        memory_erase.of_user(connection, tenant, user_id, gone)
        document_erase.of_user(connection, tenant, user_id, gone)
        folders.erase(connection, tenant, user_id, gone)
        gone.delete(jobs, jobs.c.user_id == user_id)
    return gone.receipt(scope)


class _Gone:
    """What an erasure has removed so far."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self._counts: Counter[str] = Counter()
        self.ids: set[str] = set()

    def column(self, column: ColumnElement[str], session_ids: Sequence[str]) -> list[str]:
        """The column's values in rows of the sessions."""
        table = column.table
        mine = select(column).where(table.c.tenant == self._tenant, table.c.session_id.in_(session_ids))
        return list(self._connection.scalars(mine))

    def delete(self, table: Table, where: ColumnElement[bool]) -> int:
        """Delete rows of the tenant; returns how many."""
        count = self._connection.execute(delete(table).where(table.c.tenant == self._tenant, where)).rowcount
        self._counts[table.name] += count
        return count

    def orphans(self, hashes: Iterable[str]) -> None:
        """Delete those artifacts that nobody uses any more."""
        table, uses = schema.artifacts, schema.artifact_uses
        used = exists().where(uses.c.tenant == self._tenant, uses.c.sha256 == table.c.sha256)
        for some in chunks(sorted(set(hashes))):
            ours = (table.c.tenant == self._tenant, table.c.sha256.in_(some), ~used)
            self.ids.update(self._connection.scalars(select(table.c.sha256).where(*ours)))
            self.delete(table, table.c.sha256.in_(some) & ~used)

    def receipt(self, scope: str) -> Erasure:
        """Store the receipt and return it."""
        hashed = hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()
        done = Erasure(new_id("del"), scope, dict(self._counts), hashed, time.time())
        row = {"id": done.id, "scope": scope, "counts": done.counts, "ids_sha256": hashed, "at": done.at}
        self._connection.execute(insert(schema.deletions).values(tenant=self._tenant, **row))
        return done
