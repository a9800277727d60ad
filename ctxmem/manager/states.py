"""States of a session: every one that a request was sent, and those worked out ahead of the epoch that will use them.

A state is an event (ADR 8). One that a job has worked out is logged with its items in full and shown to no model: the
next epoch goes on from it. So a late result never changes what was sent, and a job that dies leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.compressors.mem1.apply import words
from ctxmem.compressors.mem1.consolidate import TITLE, Ahead, Consolidate, read
from ctxmem.compressors.mem1.state import Item, State, clean, dump, load
from ctxmem.errors import NotFound
from ctxmem.ports import Store
from ctxmem.records import Event
from ctxmem.types import Scope

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager

ORIGIN = "ctxmem:state"
_MOST_SOURCES = 3


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a session.

    Attributes:
        event_id: its event.
        at: when it was made, seconds since 1970.
        state: what it says; its version counts the session's states from 1.
        waiting: whether no request was sent it: it waits for the next epoch, or another took its place.
    """

    event_id: str
    at: float
    state: State
    waiting: bool


@dataclass(frozen=True, slots=True)
class States:
    """The states of one session's newest branch.

    Attributes:
        manager: the manager whose tenant owns the session.
        session_id: the session.
    """

    manager: ContextManager
    session_id: str

    def versions(self) -> list[Version]:
        """All of them, oldest first.

        Raises:
            NotFound: there is no such session.
        """
        return [self._version(number, event) for number, event in enumerate(self._events(), 1)]

    def at(self, number: int | None = None, *, sources: bool = False) -> Version:
        """One of them.

        Args:
            number: its version; None for the newest. Version 0 is the empty state before the first.
            sources: find the events that items come from, where the state does not say.

        Raises:
            NotFound: there is no such session or version.
        """
        events = self._events()
        number = len(events) if number is None else number
        if number == 0:
            return Version("", 0.0, State(bound=0), waiting=False)
        if not 0 < number <= len(events):
            raise NotFound(f"session {self.session_id!r} has no state of version {number}")
        found = self._version(number, events[number - 1])
        return replace(found, state=self._sourced(found.state, events[number - 1])) if sources else found

    def _events(self) -> list[Event]:
        head = self.manager.session(self.session_id).head
        return self.manager.engine.store.history(self.manager.tenant, head.id, head.branch, origin=ORIGIN)

    def _version(self, number: int, event: Event) -> Version:
        ahead = told(event)
        if ahead is not None:
            return Version(event.id, event.at, replace(ahead.state, version=number), waiting=True)
        state = read(chat.parse(event.raw).text)
        request = self.manager.engine.store.request(self.manager.tenant, event.request_id or "")
        if request is not None:
            count = self.manager.engine.counters(request.model)
            bound = Consolidate().room(request.limit, count)[1]
            state = replace(state, tokens=count.texts([state.text()])[0], bound=bound)
        return Version(event.id, event.at, replace(state, version=number), waiting=False)

    def _sourced(self, state: State, event: Event) -> State:
        """The state with the events that its items come from."""
        if all(item.src for item in state.items):
            return state
        store, tenant = self.manager.engine.store, self.manager.tenant
        before = store.history(tenant, event.session_id, event.branch, stop=event.depth)
        texts = [(one.id, clean(chat.parse(one.raw).text)) for one in before if one.kind is None]
        known = [(id, text, words(text)) for id, text in texts]
        return replace(state, items=tuple(replace(i, src=i.src or _sources(i, known)) for i in state.items))


def ahead_of(store: Store, scope: Scope) -> Ahead | None:
    """The newest state that was worked out for a context."""
    events = store.history(scope.tenant, scope.session_id, scope.branch, stop=scope.depth, origin=ORIGIN)
    found = (told(event) for event in reversed(events))
    return next((ahead for ahead in found if ahead is not None), None)


def record(state: State, covers: Iterable[str]) -> bytes:
    """A state that was worked out ahead as the JSON of its event."""
    said = {"role": "user", "content": f"{TITLE}\n{state.text()}", "state": dump(state), "covers": sorted(covers)}
    return chat.dump(said)


def told(event: Event) -> Ahead | None:
    """The state that `record` wrote; None for one that was sent."""
    wire = chat.decode(event.raw)
    if "covers" not in wire:
        return None
    return Ahead(load(wire["state"]), frozenset(wire["covers"]))


def wire(version: Version) -> dict[str, Any]:
    """A version as `GET /v1/sessions/{id}/state` gives it."""
    state = dump(version.state)
    shown = {name: state[name] for name in ("version", "goal", "pins", "items", "tokens", "bound", "evicted")}
    return {**shown, "event_id": version.event_id, "at": version.at, "waiting": version.waiting}


def _sources(item: Item, known: Sequence[tuple[str, str, set[str]]]) -> tuple[str, ...]:
    """Events that say what the item says; else those that share most of its words."""
    text = item.text.removeprefix("user: ")
    quoted = [id for id, said, _ in known if text in said]
    if quoted:
        return tuple(quoted[:_MOST_SOURCES])
    wanted = words(text)
    shared: Mapping[str, int] = {id: len(wanted & has) for id, _, has in known}
    best = max(shared.values(), default=0)
    return tuple(id for id, number in shared.items() if best and number == best)[:_MOST_SOURCES]
