"""Writes to a session, in order: read its state, work out a batch, compare-and-set; again when somebody was first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ctxmem import chat
from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.ledger import Live, link, seed
from ctxmem.manager.arrive import Arrival, Log, arrive, follow, fork, identity, owned
from ctxmem.manager.build import Built
from ctxmem.manager.calls import Appended, Call
from ctxmem.manager.engine import Engine
from ctxmem.records import Batch, Branch, Event, LedgerEntry, RequestRecord, Session
from ctxmem.types import Message

_TRIES = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Writes:
    """The writes of one tenant: a request, an answer, an append, a mark of our own.

    Attributes:
        engine: the shared parts.
        tenant: whose sessions these are.
    """

    engine: Engine
    tenant: str

    def build(self, call: Call, plan: Callable[[Arrival], Built]) -> Built:
        """Log a call and the context planned for it."""

        def attempt() -> Built:
            arrival = arrive(call, self.tenant, self.engine.hot, self.engine.store)
            built = plan(arrival)
            self._write(built.batch, built.live)
            return built

        return self._in_order(call.session_id or _opening(call), attempt)

    def answer(
        self, request: RequestRecord, said: Sequence[Message], *, complete: bool, usage: Mapping[str, int]
    ) -> str | None:
        """Log an answer after the request it answers; the same answer again is the same event.

        Args:
            request: what it answers.
            said: its messages in order; most answers have one.
            complete: False when it was cut off.
            usage: the upstream's token counts.
        """
        status = "answered" if said and complete else "cut" if said else "failed"
        request = replace(request, status=status, usage=usage)
        return self._in_order(request.session_id, lambda: self._answer(request, said, complete=complete))

    def append(
        self, session_id: str, messages: Sequence[Message], *, expected: int | None, key: str | None, user_id: str
    ) -> Appended:
        """Log messages at the tip of the session's newest branch."""
        if not messages:
            raise InvalidInput("messages must not be empty", param="messages")
        return self._in_order(
            session_id,
            lambda: self._append(session_id, messages, expected=expected, key=key, user_id=user_id),
            tries=_TRIES if expected is None else 1,
        )

    def mark(self, session_id: str, compose: Callable[[Live], Message]) -> tuple[Message, Live]:
        """Log something that ctxmem puts in at the tip of the newest branch.

        Args:
            session_id: a session in which something was said.
            compose: makes the message from the branch's state, of a kind that is ours; or gives one of its messages,
                when nothing is to be done. What it raises is raised.

        Returns:
            The message under its event's id, and the branch's state with it.
        """

        def attempt() -> tuple[Message, Live] | Conflict:
            live = self.current(session_id)
            try:
                message = compose(live)
            except Conflict as refusal:  # it is about what is true now: trying again would not help
                return refusal
            return (message, live) if message.id else self._put(live, message)

        done = self._in_order(session_id, attempt)
        if isinstance(done, Conflict):
            raise done
        return done

    def begin(self, session_id: str, text: str, *, user_id: str) -> None:
        """Open a session with something that ctxmem says, unless it is there."""

        def attempt() -> None:
            if self.engine.store.session(self.tenant, session_id) is None:
                session = Session(session_id, user_id=user_id, created_at=time.time())
                branch = Branch(session_id, tip_chain=seed("session", session_id))
                self._put(Live(session, branch), chat.build("user", text, kind="scope"))

        self._in_order(session_id, attempt)

    def current(self, session_id: str) -> Live:
        """The newest branch as it is now, whoever wrote last.

        Raises:
            NotFound: nothing was said in the session.
        """
        head = self.engine.store.session(self.tenant, session_id)
        hot = self.engine.hot.session(self.tenant, session_id) if head is not None else None
        if hot is not None and head is not None and hot.revision != head.revision:
            self.engine.hot.drop(self.tenant, session_id)
        live = self.engine.hot.load(self.tenant, head, head.branch) if head is not None else None
        if live is None or not live.items:
            raise NotFound(f"nothing was said in a session {session_id!r}")
        return live

    def _put(self, live: Live, message: Message, *, why: str = "") -> tuple[Message, Live]:
        """Log what ctxmem says at the tip; with a reason it is not shown, and receipts give the reason."""
        log = Log(live.session, live.branch)
        seat = float(live.branch.depth)
        log.add(message, seat=seat, origin=f"ctxmem:{message.kind}")
        head = replace(log.session, revision=live.session.revision + 1, updated_at=time.time())
        (event,), (item,) = log.events, log.items
        hidden = LedgerEntry(
            head.id, event.branch, head.turn, event.id, "consolidated", "consolidate", reason=why, seat=seat
        )
        shown = () if why else (item,)
        live = replace(live, session=head, branch=log.branch, items=(*live.items, *shown))
        entries = (hidden,) if why else ()
        self._write(Batch(head, head.revision - 1, branch=log.branch, events=(event,), entries=entries), live)
        return item.message, live

    def _moved(self, live: Live, request: RequestRecord) -> bool:
        """Whether something was said on the branch since the request; what ctxmem puts in does not count."""
        if live.branch.depth <= request.depth:
            return False
        since = self.engine.store.history(
            self.tenant, request.session_id, live.branch.number, start=request.depth, stop=live.branch.depth
        )
        return any(event.kind is None for event in since)

    def aside(self, live: Live, raw: bytes, why: str) -> None:
        """Log a state that no request is sent: the next epoch goes on from it.

        Args:
            live: the branch that it was worked out for; it may have moved on since.
            raw: the state's JSON.
            why: what receipts say of it.
        """

        def attempt() -> None:
            now = self.current(live.session.id)
            if now.branch.number == live.branch.number:
                message = chat.parse(raw)
                self._put(now, replace(message, kind="state"), why=why)

        self._in_order(live.session.id, attempt)

    def _answer(self, request: RequestRecord, said: Sequence[Message], *, complete: bool) -> str | None:
        session = self._session(request.session_id)
        live = self.engine.hot.load(self.tenant, session, request.branch)
        if not said:
            return self._settle(session, live, request)
        if self._moved(live, request) or session.branches > 1:
            live, known = self._sibling(live, request, said[0])
            if known is not None:
                return self._settle(session, live, replace(request, reply_id=known))
        events: list[Event] = []
        for message in said:
            head, branch, event, item = follow(live, message, origin="upstream")
            live = replace(live, session=head, branch=branch, items=(*live.items, item))
            events.append(replace(event, request_id=request.id, complete=complete))
        head = replace(
            live.session,
            revision=session.revision + 1,
            branch=live.branch.number,
            branches=max(live.session.branches, live.branch.number + 1),
            updated_at=time.time(),
        )
        request = replace(request, reply_id=events[0].id)
        jobs = self.engine.after_answer(request)
        self._write(
            Batch(head, session.revision, branch=live.branch, events=tuple(events), request=request, jobs=jobs),
            replace(live, session=head),
        )
        return events[0].id

    def _sibling(self, live: Live, request: RequestRecord, message: Message) -> tuple[Live, str | None]:
        """The branch to answer on, a new one when others have moved past; or the event that is this very answer."""
        seen = self.engine.store.history(self.tenant, request.session_id, request.branch, stop=request.depth)
        tip = next(
            (event for event in reversed(seen) if event.role not in chat.SYSTEM_ROLES and event.kind is None), None
        )
        root = seed("session", request.session_id)
        hash = link(tip.chain if tip is not None else root, identity(message.raw or b""))
        known = self.engine.store.known(self.tenant, [hash], request.session_id)
        if known is not None:
            return live, known.id
        return (fork(live, request.depth, tip, root) if self._moved(live, request) else live), None

    def _settle(self, session: Session, live: Live, request: RequestRecord) -> str | None:
        """Close a request that adds no event; returns the event that answers it, if there is one."""
        head = replace(session, revision=session.revision + 1)
        self._write(Batch(head, session.revision, request=request), replace(live, session=head))
        return request.reply_id

    def _append(
        self, session_id: str, messages: Sequence[Message], *, expected: int | None, key: str | None, user_id: str
    ) -> Appended:
        now = time.time()
        session = owned(self.engine.hot.session(self.tenant, session_id), session_id, user_id, now)
        if expected is not None and expected != session.revision and key is None:
            raise Conflict(f"session {session_id!r} is at revision {session.revision}, not {expected}")
        live = self.engine.hot.load(self.tenant, session, session.branch)
        if not live.branch.depth:
            live = replace(live, branch=replace(live.branch, tip_chain=seed("session", session_id)))
        events: list[Event] = []
        for message in messages:
            head, branch, event, item = follow(live, message, origin="client")
            live = replace(live, session=head, branch=branch, items=(*live.items, item))
            events.append(event)
        head = replace(live.session, revision=session.revision + 1, updated_at=now)
        wanted = session.revision if expected is None else expected
        batch = Batch(
            replace(head, revision=wanted + 1), wanted, branch=live.branch, events=tuple(events), idempotency_key=key
        )
        stored = self._write(batch, replace(live, session=head))
        return Appended(stored.session.revision, tuple(event.id for event in stored.events))

    def _write(self, batch: Batch, live: Live) -> Batch:
        """Write and wait; the state is kept hot once it is durable, and forgotten when somebody else was first."""
        try:
            stored = self.engine.store.write(self.tenant, batch).result()
        except Conflict:
            self.engine.hot.drop(self.tenant, batch.session.id)
            raise
        if stored.events == batch.events:
            self.engine.hot.put(self.tenant, live)
        return stored

    def _session(self, session_id: str) -> Session:
        session = self.engine.hot.session(self.tenant, session_id)
        if session is None:
            raise Conflict(f"session {session_id!r} was erased")
        return session

    def _in_order(self, session_id: str, attempt: Callable[[], T], *, tries: int = _TRIES) -> T:
        """Run one read-work-write at a time per session; again from the read when another process was first."""
        with self.engine.lock(self.tenant, session_id):
            for _ in range(tries - 1):
                try:
                    return attempt()
                except Conflict:
                    continue
            return attempt()


def _opening(call: Call) -> str:
    """What stands for the name of a session that nobody named: two conversations seldom open alike at once."""
    return next((message.text for message in call.messages if message.role == "user"), "")
