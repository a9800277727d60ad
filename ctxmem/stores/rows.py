"""Records as rows and back. A row is a record's fields in order, after the tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Row, Table

from ctxmem.errors import StoreError
from ctxmem.records import Batch, Branch, Event, LedgerEntry, RequestRecord, Session
from ctxmem.stores import schema

Record = TypeVar("Record", Session, Branch, Event, LedgerEntry, RequestRecord)
Values = dict[str, Any]

TABLES: Mapping[type[Any], Table] = {
    Session: schema.sessions,
    Branch: schema.branches,
    Event: schema.events,
    LedgerEntry: schema.ledger,
    RequestRecord: schema.requests,
}
"""Where records of a kind are kept."""

_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in TABLES}
_JSON = {"parts", "usage", "timings"}


def columns(kind: type[Any]) -> list[ColumnElement[Any]]:
    """The columns that hold a record of this kind, in the order of its fields."""
    return [TABLES[kind].c[name] for name in _NAMES[kind]]


def record(kind: Callable[..., Record], row: Row[Any]) -> Record:
    """The record that a row of `columns(kind)` holds."""
    return kind(*row)


def values(tenant: str, kept: Session | Branch | LedgerEntry) -> Values:
    """The row of a record."""
    return {"tenant": tenant, **{name: getattr(kept, name) for name in _NAMES[type(kept)]}}


def event_values(tenant: str, event: Event) -> Values:
    """The row of an event, with the hash of its content."""
    row: Values = {name: getattr(event, name) for name in _NAMES[Event]}
    row.update(tenant=tenant, raw_sha256=hashlib.sha256(event.raw).digest())
    return row


def request_values(tenant: str, request: RequestRecord) -> Values:
    """The row of a request, its mappings as JSON text."""
    row: Values = {name: getattr(request, name) for name in _NAMES[RequestRecord]}
    row.update(tenant=tenant, **{name: json_text(row[name]) for name in _JSON})
    return row


def json_text(value: Mapping[str, Any]) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def said(batch: Batch) -> bytes:
    """Hash of what a batch says in which session; a retry says the same under new ids and in a new place."""
    digest = hashlib.sha256()
    for part in (batch.session.id.encode(), *(piece for e in batch.events for piece in (e.origin.encode(), e.raw))):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def pack(batch: Batch) -> bytes:
    """A batch as bytes, its events by id only and its artifacts left out: both have rows of their own."""
    kept = _Kept(
        session=batch.session,
        expected=batch.expected,
        branch=batch.branch,
        event_ids=tuple(event.id for event in batch.events),
        entries=batch.entries,
        request=batch.request,
        key=batch.idempotency_key,
    )
    return msgspec.msgpack.encode(kept)


def unpack(packed: bytes, found: Mapping[str, Event]) -> Batch:
    """The batch that `pack` wrote, with its events from `found`."""
    kept = msgspec.msgpack.decode(packed, type=_Kept)
    return Batch(
        session=kept.session,
        expected=kept.expected,
        branch=kept.branch,
        events=tuple(found[id] for id in kept.event_ids),
        entries=kept.entries,
        request=kept.request,
        idempotency_key=kept.key,
    )


def packed_ids(packed: bytes) -> tuple[str, ...]:
    """Ids of the events of a packed batch."""
    return msgspec.msgpack.decode(packed, type=_Kept).event_ids


def checked(event: Event, digest: bytes) -> Event:
    """The event, once its content matches its hash.

    Raises:
        StoreError: the content has changed on the disk.
    """
    if hashlib.sha256(event.raw).digest() != digest:
        raise StoreError(f"event {event.id} is damaged: its content does not match its hash")
    return event


class _Kept(msgspec.Struct, frozen=True):
    """What is kept of a batch under its idempotency key."""

    session: Session
    expected: int
    branch: Branch | None
    event_ids: tuple[str, ...]
    entries: tuple[LedgerEntry, ...]
    request: RequestRecord | None
    key: str | None
