"""Compressed memories in SQL. The log says what a state event stands for; the memory of it is kept beside."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, func, select

from ctxmem.ports import SlotName, SlotStore
from ctxmem.records import Event
from ctxmem.stores import reads, schema, statements
from ctxmem.stores.artifacts import hold_tenant
from ctxmem.stores.slot_schema import slots
from ctxmem.stores.writer import Database


class SqlSlots(SlotStore):
    """A `SlotStore` beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._put = statements.upsert(database.dialect, slots)
        self._has_row_locks = database.dialect.name == "postgresql"
        self._commits = database.commits
        self._reading = database.reading

    def folded(self, name: SlotName) -> list[Event]:
        ledger = schema.ledger
        mine = (ledger.c.tenant == name.tenant, ledger.c.session_id == name.session_id, ledger.c.into == name.event_id)
        with self._reading() as connection:
            seats = {row.event_id: row.seat for row in connection.execute(select(ledger).where(*mine))}
            found = reads.events_by_id(connection, name.tenant, list(seats))
        return sorted(found, key=lambda event: (_place(event, seats[event.id]), event.seq))

    def slots(self, name: SlotName, maker: str) -> bytes | None:
        mine = (slots.c.tenant == name.tenant, slots.c.event_id == name.event_id, slots.c.maker == maker)
        with self._reading() as connection:
            blob = connection.scalar(select(slots.c.blob).where(*mine, slots.c.session_id == name.session_id))
        return None if blob is None else bytes(blob)

    def keep(self, name: SlotName, maker: str, blob: bytes, *, versions: int) -> bool:
        row = {**asdict(name), "maker": maker, "blob": blob}
        return self._commits.submit(partial(self._keep, name=name, row=row, versions=versions)).result()

    def _keep(self, connection: Connection, name: SlotName, row: dict[str, Any], versions: int) -> bool:
        if self._has_row_locks:  # an erasure that is under way comes first, and then there is no event
            hold_tenant(connection, name.tenant, shared=True)
        events = schema.events
        theirs = (events.c.session_id == name.session_id, events.c.id == name.event_id)
        if connection.scalar(select(events.c.id).where(events.c.tenant == name.tenant, *theirs)) is None:
            return False
        connection.exec_driver_sql(self._put, row)
        mine = (slots.c.tenant == name.tenant, slots.c.session_id == name.session_id)
        newest = select(slots.c.event_id).distinct().where(*mine).order_by(slots.c.event_id.desc()).limit(versions)
        oldest = connection.scalar(select(func.min(newest.subquery().c.event_id)))
        connection.execute(delete(slots).where(*mine, slots.c.event_id < oldest))
        return True


def _place(event: Event, seat: float | None) -> float:
    """Where an event stands among the depths of its branch."""
    return event.depth if seat is None else seat
