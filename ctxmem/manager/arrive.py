"""Which session, which branch, and what is new: the first thing that happens to a call.

Clients come in two styles. `full` ones resend all history with every request; `delta` ones send only what is new and
name a session. The chain of message hashes tells them apart, finds the session when nobody names it, makes a retry find
what it already logged, and turns an edited history into a branch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile

from ctxmem import chat
from ctxmem.errors import InvalidInput
from ctxmem.ids import new_id
from ctxmem.ledger import Live, LiveItem, chain, link, seed
from ctxmem.manager.calls import Call
from ctxmem.manager.hot import HotStates
from ctxmem.ports import Store
from ctxmem.records import Branch, Event, Session
from ctxmem.types import Message

identity = lru_cache(maxsize=1024)(chat.identity)
"""`chat.identity`, remembered: clients resend the same bytes with every request."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call with its place in the log.

    Attributes:
        live: the branch as it was, with the session's and the tip's new values not yet in it.
        session: the session's new head.
        branch: the branch's new tip.
        items: what the request is made of: header, what is live, what is new.
        events: the new events.
        superseded: items whose system message the client took back.
    """

    live: Live
    session: Session
    branch: Branch
    items: tuple[LiveItem, ...]
    events: tuple[Event, ...]
    superseded: tuple[LiveItem, ...]


@dataclass(slots=True)
class Log:
    """Appends messages to a branch: the tip moves, events and items pile up."""

    session: Session
    branch: Branch
    events: list[Event] = field(default_factory=list)
    items: list[LiveItem] = field(default_factory=list)

    def add(self, message: Message, *, header: bool = False, seat: float | None = None, origin: str = "client") -> None:
        """Append one message.

        A header, or what ctxmem put in at a seat, is no part of the conversation's chain: its tip stays where it is.
        """
        parent, aside = self.branch.tip_chain, header or seat is not None
        before = link(parent, seed("header", str(self.session.events))) if aside else parent
        hash = link(before, identity(message.raw or b""))
        event = Event(
            id=new_id("ev"),
            session_id=self.session.id,
            branch=self.branch.number,
            seq=self.session.events,
            depth=self.branch.depth,
            parent_id=self.branch.tip_id,
            chain=hash,
            role=message.role,
            raw=message.raw or b"",
            origin=origin,
            request_id=None,
            at=time.time(),
        )
        self.session = replace(self.session, events=self.session.events + 1)
        tip = parent if aside else hash
        self.branch = replace(self.branch, depth=event.depth + 1, tip_id=event.id, tip_chain=tip)
        self.events.append(event)
        item = LiveItem(replace(message, id=event.id), hash, event.depth, header=header, seat=seat)
        self.items.append(item)


def arrive(call: Call, tenant: str, hot: HotStates, store: Store) -> Arrival:
    """Find the call's session and branch, and what in it is new.

    Raises:
        InvalidInput: there are no messages.
    """
    if not call.messages:
        raise InvalidInput("messages must not be empty", param="messages")
    header = tuple(takewhile(lambda message: message.role in chat.SYSTEM_ROLES, call.messages))
    rest = call.messages[len(header) :]
    names = [identity(message.raw or b"") for message in rest]
    session, root = _session(call, header, names, tenant, hot, store)
    live = hot.load(tenant, session, session.branch)
    hashes = chain(root, names)
    style = _style(call, session, rest, hashes, live)
    if style == "unsure":
        style = "full" if store.known(tenant, hashes, session.id) is not None else "delta"
    if style == "delta" and live.branch.depth:
        hashes, new = _delta(call, live, names)
    else:
        live, new = _full(hashes, live, root, tenant, hot, store)
    log = Log(replace(session, style=_shown(style, session, rest), branch=live.branch.number), live.branch)
    superseded = _log_header(header, live, log, keep=style == "delta" and not header)
    for message in rest[new:]:
        log.add(message)
    sent_now = dict(zip(hashes, rest, strict=True)) if style == "full" else {}
    gone = {item.message.id for item in superseded}
    kept = [_as_sent_now(item, sent_now) for item in live.items if item.message.id not in gone]
    items = sorted([*kept, *log.items], key=lambda item: item.place)
    if not any(not item.header for item in items) and not header:
        raise InvalidInput("messages must not be empty", param="messages")
    branches = max(log.session.branches, live.branch.number + 1)
    return Arrival(
        live, replace(log.session, branches=branches), log.branch, tuple(items), tuple(log.events), superseded
    )


def follow(live: Live, message: Message, *, origin: str) -> tuple[Session, Branch, Event, LiveItem]:
    """Append one message to a branch: the session's and the branch's new values, the event and its item."""
    log = Log(live.session, live.branch)
    leads = message.role in chat.SYSTEM_ROLES and all(item.header for item in live.items)
    log.add(message, header=leads, origin=origin)
    return log.session, log.branch, log.events[0], log.items[0]


def fork(live: Live, at: int, tip: Event | None, root: bytes) -> Live:
    """A new branch of a session that shares the first `at` events of another.

    Args:
        live: the branch to fork from.
        at: events shared.
        tip: the last of them; None when nothing is shared.
        root: the session's seed, the tip's chain when nothing is shared.
    """
    number = live.session.branches
    branch = Branch(
        session_id=live.session.id,
        number=number,
        parent=live.branch.number,
        fork_depth=at,
        fork_turn=live.session.turn,
        tip_id=tip.id if tip is not None else None,
        tip_chain=tip.chain if tip is not None else root,
        depth=at,
        epoch=live.branch.epoch,
        request_id=live.branch.request_id,
    )
    items = tuple(item for item in live.items if item.depth < at)
    return replace(live, branch=branch, items=items, gone=live.gone if at else 0)


def _session(
    call: Call, header: Sequence[Message], names: Sequence[bytes], tenant: str, hot: HotStates, store: Store
) -> tuple[Session, bytes]:
    """The call's session, new or known, and the root of its chain."""
    now = time.time()
    if call.session_id is not None:
        root = seed("session", call.session_id)
        return owned(hot.session(tenant, call.session_id), call.session_id, call.user_id, now), root
    root = seed("chain", call.user_id, *(identity(message.raw or b"").hex() for message in header))
    if call.retry or any(message.role == "assistant" for message in call.messages):
        hashes = chain(root, names)
        found = hot.owner(tenant, hashes)
        if found is None:
            event = store.known(tenant, hashes)
            found = event.session_id if event is not None else None
        known = hot.session(tenant, found) if found is not None else None
        if known is not None:
            return known, root
    return Session(new_id("s"), user_id=call.user_id, style="full", created_at=now), root


def owned(known: Session | None, session_id: str, user_id: str, now: float) -> Session:
    """The session, new or known; one that is nobody's becomes the user's, so that it is erased with who spoke in it."""
    if known is None:
        return Session(session_id, user_id=user_id, created_at=now)
    return known if known.user_id or not user_id else replace(known, user_id=user_id)


def _style(call: Call, session: Session, rest: Sequence[Message], hashes: Sequence[bytes], live: Live) -> str:
    """Whether the caller resends all history or sends what is new.

    A session that nobody named is found by its history, so its caller resends it. In a named one a known history with
    an answer in it was resent, whatever came before. Else what the session has shown decides, and without that whether
    anything in the request is known. `unsure`: a caller that used to resend all now says nothing the branch would send.
    """
    if call.history != "auto":
        return call.history
    if call.session_id is None or not live.branch.depth:
        return session.style or "full"
    answered = any(message.role == "assistant" for message in rest)
    resent = any(item.chain in hashes for item in live.items)
    if session.style == "full" and rest and not answered and not resent:
        return "unsure"
    told = "full" if resent or answered else "delta"
    return "full" if resent and answered else session.style or told


def _shown(style: str, session: Session, rest: Sequence[Message]) -> str:
    """The style to remember: a request without an answer in it does not yet prove that all history is resent."""
    return style if style == "delta" or any(m.role == "assistant" for m in rest) else session.style


def _full(hashes: list[bytes], live: Live, root: bytes, tenant: str, hot: HotStates, store: Store) -> tuple[Live, int]:
    """The branch that a full history continues, and how many of its messages are known."""
    if not live.branch.depth or live.branch.tip_chain == root:
        return replace(live, branch=replace(live.branch, tip_chain=root)), 0
    tip = live.branch.tip_chain
    alone = live.session.branches == 1 and tip in hashes  # else another branch may know more of it
    known = None if alone else store.known(tenant, hashes, live.session.id)
    if alone or (known is not None and known.chain == tip):
        return live, hashes.index(tip) + 1
    if known is None:
        return fork(live, 0, None, root), 0
    if known.branch != live.branch.number:
        live = hot.load(tenant, live.session, known.branch)
    position = hashes.index(known.chain) + 1
    return (live if live.branch.tip_chain == known.chain else fork(live, known.depth + 1, known, root)), position


def _delta(call: Call, live: Live, names: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Chain hashes of messages that come after the tip, and how many of them a retry has logged before."""
    if call.retry:
        said = [item for item in live.items if not item.header and item.seat is None]
        tail, before = said[-len(names) :], said[: -len(names)]
        hashes = [item.chain for item in tail]
        if hashes == chain(before[-1].chain if before else seed("session", live.session.id), names):
            return hashes, len(names)
    return chain(live.branch.tip_chain, names), 0


def _log_header(header: Sequence[Message], live: Live, log: Log, *, keep: bool) -> tuple[LiveItem, ...]:
    """Log system messages that changed; returns the items they take the place of."""
    old = [item for item in live.items if item.header]
    if keep or [identity(i.message.raw or b"") for i in old] == [identity(m.raw or b"") for m in header]:
        return ()
    for message in header:
        log.add(message, header=True)
    return tuple(old)


def _as_sent_now(item: LiveItem, sent_now: Mapping[bytes, Message]) -> LiveItem:
    """The item with the bytes its client sends today, unless it goes out shortened."""
    now = sent_now.get(item.chain)
    if now is None or item.pruned or now.raw == item.message.raw:
        return item
    return replace(item, message=replace(now, id=item.message.id), rewritten=True)
