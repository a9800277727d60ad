"""Receipts and replays: what a request was made of, read back from the log and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import overload

from ctxmem import chat
from ctxmem.errors import NotFound
from ctxmem.ids import item_of_event
from ctxmem.ledger import Live, LiveItem
from ctxmem.manager.arrive import Arrival
from ctxmem.manager.build import build, rendered_sha
from ctxmem.manager.calls import Call, Replay
from ctxmem.manager.hot import is_gone, rendering, said
from ctxmem.policy import Policy
from ctxmem.ports import Counter, Store
from ctxmem.records import Branch, Event, LedgerEntry, RequestRecord, Session
from ctxmem.types import Budget, Item, Message, Receipt


def receipt(request: RequestRecord, items: Sequence[Item] = ()) -> Receipt:
    """A request's record as its receipt."""
    return Receipt(
        id=request.id,
        session_id=request.session_id,
        model=request.model,
        exact=request.exact,
        mode=request.mode,
        policy=request.policy,
        limit=request.limit,
        reserve=request.reserve,
        tokens=request.tokens,
        parts=request.parts,
        stable_prefix_tokens=request.stable_prefix,
        action=request.action,
        reason=request.reason,
        items=items,
        timings=request.timings,
    )


class LoggedItems(Sequence[Item]):
    """A receipt's items, read from the log when somebody looks: a turn's cost does not grow with its history."""

    def __init__(self, load: Callable[[], tuple[Item, ...]]) -> None:
        self._items = lru_cache(maxsize=1)(load)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self._items()[index]

    def __len__(self) -> int:
        return len(self._items())


def find_request(store: Store, tenant: str, request_id: str) -> RequestRecord:
    """The request's record.

    Raises:
        NotFound: this tenant has no such request.
    """
    request = store.request(tenant, request_id)
    if request is None:
        raise NotFound(f"no request {request_id!r}")
    return request


def seen(store: Store, tenant: str, request: RequestRecord) -> tuple[list[Event], dict[str, LedgerEntry]]:
    """The events that a request saw, and how the ledger rendered them then."""
    events = store.history(tenant, request.session_id, request.branch, stop=request.depth)
    return events, store.ledger(tenant, request.session_id, request.branch, turn=request.turn)


def items(events: Sequence[Event], entries: Mapping[str, LedgerEntry]) -> tuple[Item, ...]:
    """Each event exactly once, with what became of it."""
    return tuple(_item(event, entries.get(event.id)) for event in events)


def rendered(events: Sequence[Event], entries: Mapping[str, LedgerEntry]) -> tuple[Message, ...]:
    """The messages as they were sent: the header first, then what was live, in order."""
    live = [event for event in events if event.id not in entries or not is_gone(entries[event.id])]
    live.sort(key=lambda event: _place(event, entries.get(event.id)))
    return tuple(said(event, rendering(event, entries)) for event in live)


def rebuilt(
    request: RequestRecord,
    events: Sequence[Event],
    policy: Policy,
    counter: Counter,
    budget: Budget,
    tools: bytes | None,
) -> Replay:
    """What a policy and a budget would have made of a request's history; nothing is written.

    Raises:
        BudgetError: the pinned minimum does not fit.
    """
    events = [event for event in events if event.kind is None]
    messages = tuple(said(event) for event in events)
    fresh = [
        LiveItem(m, e.chain, e.depth, header=m.role in chat.SYSTEM_ROLES) for m, e in zip(messages, events, strict=True)
    ]
    session, branch = Session(request.session_id), Branch(request.session_id, depth=request.depth)
    arrival = Arrival(Live(session, branch), session, branch, tuple(fresh), tuple(events), ())
    call = Call(messages, model=request.model, session_id=request.session_id, budget=budget, tools=tools)
    built = build(call, arrival, policy, counter)
    if built.refused is not None:
        raise built.refused
    assert built.batch.request is not None
    entries = {entry.event_id: entry for entry in built.batch.entries}
    account = receipt(replace(built.batch.request, id=request.id), items(events, entries))
    return Replay(built.messages, is_identical(request, built.messages), account)


def is_identical(request: RequestRecord, messages: tuple[Message, ...]) -> bool:
    """Whether the messages are byte for byte those that were sent."""
    return rendered_sha(messages) == request.rendered_sha


def _place(event: Event, entry: LedgerEntry | None) -> tuple[bool, float]:
    """Sorts events into the order in which they were sent; as `LiveItem.place`."""
    if entry is None:
        return True, event.depth
    return entry.stage != "header", event.depth if entry.seat is None else entry.seat


def _item(event: Event, entry: LedgerEntry | None) -> Item:
    item_id = item_of_event(event.id)
    if entry is None:
        return Item(event.id, item_id, "kept", "", "", 0, 0)
    stage = "" if entry.stage == "header" else entry.stage
    return Item(event.id, item_id, entry.decision, stage, entry.reason, entry.tokens_before, entry.tokens_after)
