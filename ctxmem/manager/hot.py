"""Hot state of sessions: in the process, in the shared cache, or rebuilt from the store.

The store is the truth. A state that is out of date loses its compare-and-set at the next write and is loaded again, so
nothing here can make a request wrong, only slower.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from ctxmem import chat
from ctxmem.ledger import Live, LiveItem, fingerprint, surroundings
from ctxmem.ports import Cache, Store
from ctxmem.records import Branch, Event, LedgerEntry, Session
from ctxmem.types import Message

_TTL_SECONDS = 3600.0
_SHAPE = 2  # of the states in the shared cache; processes of an older ctxmem may share it


class HotStates:
    """The newest states, by tenant, session and branch. Safe for threads."""

    def __init__(self, store: Store, cache: Cache, *, room: int = 4 << 20) -> None:
        """Keep at most about `room` bytes of states, the least recently written go first."""
        self._store = store
        self._cache = cache
        self._room = room
        self._used = 0
        self._sessions: OrderedDict[tuple[str, str], dict[int, Live]] = OrderedDict()
        self._tips: dict[tuple[str, bytes], str] = {}
        self._lock = threading.Lock()

    def session(self, tenant: str, session_id: str) -> Session | None:
        """The session's head as last seen here, else from the store."""
        with self._lock:
            lives = self._sessions.get((tenant, session_id))
            if lives:
                return next(iter(lives.values())).session
        return self._store.session(tenant, session_id)

    def load(self, tenant: str, session: Session, number: int) -> Live:
        """The state of a branch."""
        if not session.revision:
            return Live(session, Branch(session.id))
        with self._lock:
            live = self._sessions.get((tenant, session.id), {}).get(number)
        if live is not None:
            return replace(live, session=session)
        return self._recall(tenant, session, number) or self._rebuild(tenant, session, number)

    def owner(self, tenant: str, chains: list[bytes]) -> str | None:
        """The session whose tip stands last in `chains`, when it is hot."""
        with self._lock:
            return next((self._tips[tenant, c] for c in reversed(chains) if (tenant, c) in self._tips), None)

    def put(self, tenant: str, live: Live) -> None:
        """Keep a state that has just been written; the session's other branches stay as they are.

        The shared cache gets it between turns, when another process may take the session over.
        """
        key = (tenant, live.session.id)
        with self._lock:
            lives = self._taken(key)
            others = {n: replace(other, session=live.session) for n, other in lives.items() if n != live.branch.number}
            self._sessions[key] = {live.branch.number: live, **others}
            for kept in self._sessions[key].values():
                self._tips[tenant, kept.branch.tip_chain] = live.session.id
                self._used += _size(kept)
            while self._used > self._room and len(self._sessions) > 1:
                self._taken(next(iter(self._sessions)))
        if any(not item.booked for item in live.items):
            self._cache.put(tenant, _cache_key(live.session.id, live.branch.number), _dump(live), ttl=_TTL_SECONDS)

    def drop(self, tenant: str, session_id: str, *, branches: int = 1) -> int:
        """Forget a session, which has so many branches, here and in the shared cache; returns the keys removed."""
        with self._lock:
            lives = self._taken((tenant, session_id))
        numbers = range(max(branches, max(lives, default=0) + 1))
        return self._cache.drop(tenant, [_cache_key(session_id, number) for number in numbers])

    def clear(self, tenant: str, session_ids: Iterable[str]) -> None:
        """Forget sessions here."""
        with self._lock:
            for session_id in session_ids:
                self._taken((tenant, session_id))

    def _taken(self, key: tuple[str, str]) -> Mapping[int, Live]:
        """Take a session out; returns what was known of it."""
        lives = self._sessions.pop(key, {})
        for live in lives.values():
            self._tips.pop((key[0], live.branch.tip_chain), None)
            self._used -= _size(live)
        return lives

    def _recall(self, tenant: str, session: Session, number: int) -> Live | None:
        """The state from the shared cache, if it is the session's present one."""
        found = self._cache.get(tenant, _cache_key(session.id, number))
        state = json.loads(found) if found else {}
        if state.get("revision") != session.revision or state.get("shape") != _SHAPE:
            return None
        branch = self._store.branch(tenant, session.id, number)
        events = {e.id: e for e in self._store.events_by_id(tenant, [item[0] for item in state["items"]])}
        if branch is None or len(events) != len(state["items"]):
            return None
        items = tuple(_item(events[item[0]], item) for item in state["items"])
        sent = tuple((bytes.fromhex(h), tokens) for h, tokens in state["sent"])
        return Live(session, branch, items, sent, bytes.fromhex(state["surroundings"]), state["at"], state["gone"])

    def _rebuild(self, tenant: str, session: Session, number: int) -> Live:
        """The state from the log and the ledger alone."""
        branch = self._store.branch(tenant, session.id, number) or Branch(session.id, number)
        entries = self._store.ledger(tenant, session.id, number)
        events = self._store.history(tenant, session.id, number)
        gone = sum(entries[e.id].tokens_before for e in events if e.id in entries and is_gone(entries[e.id]))
        leading = {e.id for e in takewhile(lambda e: e.role in chat.SYSTEM_ROLES, events)}
        live_events = [e for e in events if e.id not in entries or not is_gone(entries[e.id])]
        items = [_booked(e, entries.get(e.id), leads=e.id in leading) for e in live_events]
        items.sort(key=lambda item: item.place)
        live = Live(session, branch, tuple(items), gone=gone)
        request = self._store.request(tenant, branch.request_id) if branch.request_id else None
        if request is None:
            return live
        sent = [item for item in items if item.booked]
        tokens = [entries[item.message.id].tokens_after for item in sent]
        return replace(
            live,
            sent=fingerprint([item.message for item in sent], tokens),
            surroundings=surroundings(request.model, request.tools_sha),
            at=request.at,
        )


def is_gone(entry: LedgerEntry) -> bool:
    """Whether the event is no longer rendered as a message of its own."""
    return entry.decision in ("dropped", "folded", "consolidated", "memory")


def rendering(event: Event, entries: Mapping[str, LedgerEntry]) -> bytes:
    """The message's JSON as the ledger sends it."""
    entry = entries.get(event.id)
    return entry.rendered if entry is not None and entry.rendered is not None else event.raw


def said(event: Event, rendered: bytes | None = None) -> Message:
    """The event as a message, with other bytes than its own when it goes out so."""
    return replace(chat.parse(rendered or event.raw), id=event.id, kind=event.kind)


def _booked(event: Event, entry: LedgerEntry | None, *, leads: bool) -> LiveItem:
    if entry is None:
        return LiveItem(said(event), event.chain, event.depth, header=leads)
    return LiveItem(
        message=said(event, entry.rendered),
        chain=event.chain,
        depth=event.depth,
        before=entry.tokens_before,
        pruned=entry.decision == "pruned",
        header=entry.stage == "header",
        booked=True,
        rewritten=entry.rendered is not None,
        seat=entry.seat,
    )


def _item(event: Event, row: list[Any]) -> LiveItem:
    """The item that `_dump` wrote as `row`."""
    _, before, pruned, header, booked, seat, text = row
    message = said(event, text.encode() if text is not None else None)
    return LiveItem(message, event.chain, event.depth, before, pruned, header, booked, text is not None, seat)


def _size(live: Live) -> int:
    """About how many bytes a state takes: its messages, twice, and the objects around them."""
    return 1024 + sum(1024 + 2 * len(item.message.raw or b"") for item in live.items)


def _cache_key(session_id: str, number: int) -> str:
    return f"live:{session_id}:{number}"


def _changed(message: Message) -> str:
    return (message.raw or b"").decode()


def _dump(live: Live) -> bytes:
    """Compact JSON: ids and what the ledger changed; the originals stay in the store."""
    items = [
        [i.message.id, i.before, i.pruned, i.header, i.booked, i.seat, _changed(i.message) if i.rewritten else None]
        for i in live.items
    ]
    state = {
        "shape": _SHAPE,
        "revision": live.session.revision,
        "items": items,
        "sent": [[h.hex(), tokens] for h, tokens in live.sent],
        "surroundings": live.surroundings.hex(),
        "at": live.at,
        "gone": live.gone,
    }
    return json.dumps(state, separators=(",", ":")).encode()
