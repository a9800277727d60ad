"""Reading the log back as records. Every function sees one tenant's rows only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, and_, bindparam, literal, or_, select

from ctxmem.records import Branch, Event, LedgerEntry, RequestRecord, Session
from ctxmem.stores import schema
from ctxmem.stores.rows import Record, checked, columns, record

CHUNK = 250
"""Values in one IN list, and branches in one query: well under what SQLite parses."""
NEAR = 4
"""Chains at the end of a request that are looked up one by one."""

T = TypeVar("T")

_events, _ledger, _branches = schema.events, schema.ledger, schema.branches
_tenant: BindParameter[str] = bindparam("tenant")
_id: BindParameter[str] = bindparam("id")
_in_session = _events.c.session_id == bindparam("session_id")

_session = select(*columns(Session)).where(schema.sessions.c.tenant == _tenant, schema.sessions.c.id == _id)
_request = select(*columns(RequestRecord)).where(schema.requests.c.tenant == _tenant, schema.requests.c.id == _id)
_event = select(*columns(Event), _events.c.raw_sha256).where(_events.c.tenant == _tenant, _events.c.id == _id)
_branch = select(*columns(Branch)).where(
    _branches.c.tenant == _tenant,
    _branches.c.session_id == bindparam("session_id"),
    _branches.c.number == bindparam("number"),
)
_known = (
    select(*columns(Event))
    .where(_events.c.tenant == _tenant, _events.c.chain == bindparam("chain"))
    .order_by(_events.c.id.desc())
    .limit(1)
)
_known_here = _known.where(_in_session)
_any_known = (
    select(literal(1))
    .where(_events.c.tenant == _tenant, _events.c.chain.in_(bindparam("chains", expanding=True)))
    .limit(1)
)
_any_known_here = _any_known.where(_in_session)
_log = (
    select(*columns(Event))
    .where(_events.c.tenant == _tenant, _in_session, _events.c.seq > bindparam("after"))
    .order_by(_events.c.seq)
    .limit(bindparam("limit"))
)
_some = select(*columns(Event)).where(_events.c.tenant == _tenant, _events.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class _Span:
    """What one branch gives to the path of another, or of itself.

    Attributes:
        branch: the branch.
        stop: depth after its last event on the path; None for the branch itself, which has no end.
        turn: last turn of its ledger that holds on the path; None when all do.
    """

    branch: int
    stop: int | None
    turn: int | None


def session(connection: Connection, tenant: str, session_id: str) -> Session | None:
    """The session's head."""
    return _one(connection, Session, _session, tenant=tenant, id=session_id)


def sessions(connection: Connection, tenant: str, user_id: str | None, limit: int, after: str) -> list[Session]:
    """Sessions by id after `after`."""
    table = schema.sessions
    query = select(*columns(Session)).where(table.c.tenant == tenant, table.c.id > after)
    if user_id is not None:
        query = query.where(table.c.user_id == user_id)
    return [record(Session, row) for row in connection.execute(query.order_by(table.c.id).limit(limit))]


def branch(connection: Connection, tenant: str, session_id: str, number: int) -> Branch | None:
    """One branch of a session."""
    return _one(connection, Branch, _branch, tenant=tenant, session_id=session_id, number=number)


def known(connection: Connection, tenant: str, chains: Sequence[bytes], session_id: str | None) -> Event | None:
    """The newest event of the last chain that any has.

    A request mostly adds a few messages to a known history, so the last chains are looked up one by one. The others
    are asked for many at once, whether there is any, for all sessions of a tenant may share their first chains.
    """
    here = _Known(connection, tenant, session_id)
    newest_first = list(reversed(chains))
    for chain in newest_first[:NEAR]:
        found = here.event(chain)
        if found is not None:
            return found
    for some in chunks(newest_first[NEAR:]):
        if here.any(some):
            return here.event(here.first(some))
    return None


class _Known:
    """Looks chains up, in one session or all."""

    def __init__(self, connection: Connection, tenant: str, session_id: str | None) -> None:
        self._connection = connection
        self._own = {"tenant": tenant} if session_id is None else {"tenant": tenant, "session_id": session_id}
        self._event, self._any = (_known, _any_known) if session_id is None else (_known_here, _any_known_here)

    def event(self, chain: bytes) -> Event | None:
        return _one(self._connection, Event, self._event, chain=chain, **self._own)

    def any(self, chains: Sequence[bytes]) -> bool:
        return self._connection.execute(self._any, {"chains": chains, **self._own}).first() is not None

    def first(self, chains: Sequence[bytes]) -> bytes:
        """The first of the chains that is known, found by halving; one of them is."""
        while len(chains) > 1:
            half = chains[: len(chains) // 2]
            chains = half if self.any(half) else chains[len(half) :]
        return chains[0]


def event(connection: Connection, tenant: str, event_id: str) -> Event | None:
    """One event, checked against its hash.

    Raises:
        StoreError: it has changed on the disk.
    """
    row = connection.execute(_event, {"tenant": tenant, "id": event_id}).first()
    return None if row is None else checked(Event(*row[:-1]), row.raw_sha256)


def events(connection: Connection, tenant: str, session_id: str, after_seq: int, limit: int) -> list[Event]:
    """Events of all branches in seq order."""
    wanted = {"tenant": tenant, "session_id": session_id, "after": after_seq, "limit": limit}
    return [record(Event, row) for row in connection.execute(_log, wanted)]


def events_by_id(connection: Connection, tenant: str, event_ids: Sequence[str]) -> list[Event]:
    """The events that exist."""
    found = (connection.execute(_some, {"tenant": tenant, "ids": ids}) for ids in chunks(event_ids))
    return [record(Event, row) for result in found for row in result]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which events of a branch's path: `start <= depth < stop`, of one origin or any."""

    start: int = 0
    stop: int | None = None
    origin: str | None = None


def history(connection: Connection, tenant: str, session_id: str, number: int, part: Stretch) -> list[Event]:
    """Events on a part of a branch's path, in order."""
    query = select(*columns(Event)).where(
        _events.c.tenant == tenant, _events.c.session_id == session_id, _events.c.depth >= part.start
    )
    if part.stop is not None:
        query = query.where(_events.c.depth < part.stop)
    if part.origin is not None:
        query = query.where(_events.c.origin == part.origin)
    spans = [s for s in _path(connection, tenant, session_id, number) if s.stop is None or s.stop > part.start]
    found = [
        record(Event, row)
        for some in chunks(spans)
        for row in connection.execute(query.where(or_(*map(_has_event, some))))
    ]
    return sorted(found, key=lambda event: event.depth)


def ledger(
    connection: Connection, tenant: str, session_id: str, number: int, turn: int | None
) -> dict[str, LedgerEntry]:
    """By event id, the entry that holds for a branch at a turn: the newest on its path."""
    spans = _path(connection, tenant, session_id, number)
    query = select(*columns(LedgerEntry)).where(_ledger.c.tenant == tenant, _ledger.c.session_id == session_id)
    if turn is not None:
        query = query.where(_ledger.c.turn <= turn)
    found = [
        record(LedgerEntry, row)
        for some in chunks(spans)
        for row in connection.execute(query.where(or_(*map(_has_entry, some))))
    ]
    nearest = {span.branch: place for place, span in enumerate(spans)}
    found.sort(key=lambda entry: (entry.turn, -nearest[entry.branch]))
    return {entry.event_id: entry for entry in found}


def request(connection: Connection, tenant: str, request_id: str) -> RequestRecord | None:
    """One request."""
    return _one(connection, RequestRecord, _request, tenant=tenant, id=request_id)


def requests(
    connection: Connection, tenant: str, session_id: str | None, limit: int, after: str
) -> list[RequestRecord]:
    """Requests by id after `after`."""
    table = schema.requests
    query = select(*columns(RequestRecord)).where(table.c.tenant == tenant, table.c.id > after)
    if session_id is not None:
        query = query.where(table.c.session_id == session_id)
    return [record(RequestRecord, row) for row in connection.execute(query.order_by(table.c.id).limit(limit))]


def _one(connection: Connection, kind: type[Record], query: Select[Any], **wanted: str | int | bytes) -> Record | None:
    row = connection.execute(query, wanted).first()
    return None if row is None else record(kind, row)


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """The values, `CHUNK` at a time."""
    rest = iter(values)
    while some := list(islice(rest, CHUNK)):
        yield some


def _path(connection: Connection, tenant: str, session_id: str, number: int) -> list[_Span]:
    """What the branch and its ancestors give to its path, the branch first."""
    if number == 0:
        return [_Span(0, None, None)]
    query = select(_branches.c.number, _branches.c.parent, _branches.c.fork_depth, _branches.c.fork_turn)
    own = query.where(_branches.c.tenant == tenant, _branches.c.session_id == session_id)
    forks = {row.number: row for row in connection.execute(own)}
    spans, stop, turn = [], None, None
    while number in forks and (parent := forks[number].parent) is not None:
        fork = forks[number]
        spans.append(_Span(number, stop, turn))
        stop = fork.fork_depth if stop is None else min(stop, fork.fork_depth)
        turn, number = fork.fork_turn, parent
    return [*spans, _Span(number, stop, turn)]


def _has_event(span: _Span) -> ColumnElement[bool]:
    ours = _events.c.branch == span.branch
    return ours if span.stop is None else and_(ours, _events.c.depth < span.stop)


def _has_entry(span: _Span) -> ColumnElement[bool]:
    ours = _ledger.c.branch == span.branch
    return ours if span.turn is None else and_(ours, _ledger.c.turn <= span.turn)
