"""Scopes of a session: subtasks whose answer stays when what led to it leaves the context.

A scope is opened, reduced and ended by marks, which are events of the log (ADR 8): so which scopes are open is a
function of the log, and a process that dies loses none. The next request folds what has ended. An isolated scope is a
session of its own that starts with the task; only its answer reaches the session that opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.compressors.mem1.recall import Hit
from ctxmem.compressors.pencil.check import loose
from ctxmem.compressors.pencil.foreign import pending
from ctxmem.compressors.pencil.frames import Frame, Frames, Visibility, innermost, pushed, reduced, text
from ctxmem.compressors.pencil.marks import Mark, line, read
from ctxmem.errors import Conflict, NotFound
from ctxmem.ledger import Live
from ctxmem.manager.recalled import recalled, told
from ctxmem.records import Event
from ctxmem.types import Message

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager

MOST_GIVEN = 64_000
"""Characters of what an isolated scope is given."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Marked:
    """What a write to a session's scopes did.

    Attributes:
        scope: the scope's id.
        session_id: the session that the scope's messages belong to; of an isolated scope its own.
        event_id: the mark.
        revision: the session's revision after it.
        unverified: numbers, addresses, paths and quotations of an answer that stand nowhere in the scope.
        open: ids of the scopes that are open now, outermost first.
    """

    scope: str
    session_id: str
    event_id: str
    revision: int
    unverified: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scopes:
    """The scopes of one session's newest branch.

    Attributes:
        manager: the manager whose tenant owns the session.
        session_id: the session.
    """

    manager: ContextManager
    session_id: str

    def open(self, task: str, *, visibility: Visibility = "inherit", refs: Sequence[str] = ()) -> Marked:
        """Begin a subtask.

        Args:
            task: what it is to do, up to 2,000 characters.
            visibility: `inherit` goes on in this session; `isolated` in one of its own, which sees the task alone.
            refs: item ids of what an isolated scope is given.

        Raises:
            InvalidInput: the task is empty or too long, or the references are.
            NotFound: there is no such session, or a reference names nothing.
            Conflict: a tool call is unanswered, or eight scopes are open in one another.
        """
        task = " ".join(task.split())
        given = self._given(refs)

        def compose(live: Live) -> Message:
            frames = frames_of(live)
            last = live.items[-1].message
            if frames and _is(last, Mark("open", frames[-1].scope, task)):
                return last  # asked again: nothing was said since
            waiting = pending([item.message for item in live.items])
            if waiting:
                raise Conflict(f"a subtask cannot begin: unanswered tool calls: {', '.join(waiting[:5])}")
            scope = f"f{live.session.events}"
            pushed(frames, Frame(scope, task, live.branch.depth))
            return _message(Mark("open", scope, task))

        marked = self._mark(compose)
        if visibility == "inherit":
            return marked
        own = self._own(marked.scope)
        self.manager.writes.begin(
            own, f"[task] {task}{given}", user_id=self.manager.session(self.session_id).head.user_id
        )
        return replace(marked, session_id=own)

    def end(self, mark: Mark, *, said: str = "") -> Marked:
        """Return from the innermost scope, abort it, or let it go on with a smaller task (`tail`).

        Args:
            mark: what is to happen, and what the model will read of it.
            said: the part of an answer that is checked; empty for all of it.

        Raises:
            InvalidInput: the answer, reason or task is empty or too long.
            NotFound: there is no such session.
            Conflict: the scope is not the innermost one that is open, or a tool call in it is unanswered.
        """
        waiting = pending([chat.parse(event.raw) for event in self._own_events(mark.scope)])

        def compose(live: Live) -> Message:
            last = live.items[-1].message
            if _is(last, mark):
                return last  # asked again
            innermost(frames_of(live), mark, waiting or pending([item.message for item in live.items]))
            return _message(mark)

        self._opened(mark.scope)
        done = self._mark(compose)
        return replace(done, unverified=self._unverified(mark, said)) if mark.act == "return" else done

    def frames(self) -> Frames:
        """The open scopes, outermost first.

        Raises:
            NotFound: there is no such session.
        """
        return frames_of(self.manager.writes.current(self.session_id))

    def expand(self, scope: str) -> list[Event]:
        """All that was said in a scope, open or ended, word for word.

        Raises:
            NotFound: the session has no such scope.
        """
        opened = self._opened(scope)
        return self._own_events(scope) or list(self._inside(opened, scope))

    def recall(self, asked: str, k: int = 5) -> tuple[Hit, ...]:
        """What has been said in the session, whether or not it has left the context.

        Args:
            asked: the handle of a scope (`f7`) or an item (`it_...`), else words to search for.
            k: how many hits words give.

        Raises:
            NotFound: there is no such session.
        """
        return recalled(self, asked, k)

    def answer(self, arguments: str | Mapping[str, Any]) -> str:
        """What the tool `recall` says. Never raises for what a model wrote.

        Args:
            arguments: the call's arguments, decoded or as JSON.
        """
        return told(self, arguments)

    def sessions(self) -> Iterator[str]:
        """Names of the sessions of its isolated scopes."""
        after, view = -1, self.manager.session(self.session_id)
        while page := view.events(after_seq=after, limit=_PAGE):
            for mark in filter(None, map(mark_of, page)):
                own = self._own(mark.scope)
                if mark.act == "open" and self.manager.engine.store.session(self.manager.tenant, own) is not None:
                    yield own
            after = page[-1].seq

    def _mark(self, compose: Callable[[Live], Message]) -> Marked:
        written, live = self.manager.writes.mark(self.session_id, compose)
        mark = read(written.text)
        names = tuple(frame.scope for frame in frames_of(live))
        return Marked(mark.scope if mark else "", self.session_id, written.id, live.session.revision, open=names)

    def _opened(self, scope: str) -> Event:
        """The mark that opened a scope: its id says where in the log it stands.

        Raises:
            NotFound: the session has no such scope.
        """
        if scope[:1] == "f" and scope[1:].isascii() and scope[1:].isdigit() and len(scope) < 17:
            store, tenant = self.manager.engine.store, self.manager.tenant
            at = int(scope[1:])
            for event in store.events(tenant, self.session_id, after_seq=at - 1, limit=1):
                mark = mark_of(event)
                if mark is not None and (mark.act, mark.scope, event.seq) == ("open", scope, at):
                    return event
        raise NotFound(f"session {self.session_id!r} has no scope {scope!r}")

    def said(self, start: int = 0) -> Iterator[Event]:
        """The newest branch's events from a depth on, marks included.

        Raises:
            NotFound: there is no such session.
        """
        store, tenant = self.manager.engine.store, self.manager.tenant
        head = self.manager.session(self.session_id).head
        while page := store.history(tenant, head.id, head.branch, start=start, stop=start + _PAGE):
            yield from page
            start += _PAGE

    def _inside(self, opened: Event, scope: str) -> Iterator[Event]:
        """What was said after a scope's mark, until it ended."""
        for event in self.said(opened.depth + 1):
            mark = mark_of(event)
            if mark is not None and mark.scope == scope and mark.act in ("return", "abort"):
                return
            if event.kind is None:
                yield event

    def _unverified(self, mark: Mark, said: str) -> tuple[str, ...]:
        opened = self._opened(mark.scope)
        events = self._own_events(mark.scope) or self._inside(opened, mark.scope)
        task = read(chat.parse(opened.raw).text)
        return loose(said or mark.text, [task.text if task else "", *(_words(event) for event in events)])

    def _own(self, scope: str) -> str:
        """Name of the session of an isolated scope."""
        return f"{self.session_id}~{scope}"

    def _own_events(self, scope: str) -> list[Event]:
        """What was said in an isolated scope; nothing when it is none."""
        store, tenant = self.manager.engine.store, self.manager.tenant
        head = store.session(tenant, self._own(scope))
        if head is None:
            return []
        return store.history(tenant, head.id, head.branch)

    def _given(self, refs: Sequence[str]) -> str:
        given = "".join(f"\n[given {ref}] {chat.parse(self.manager.original(ref)).text}" for ref in refs)
        if given:
            text("refs", given, MOST_GIVEN)
        return given


def frames_of(live: Live) -> Frames:
    """The scopes that are open, read from the marks that are still in the context."""
    frames: Frames = ()
    for item in live.items:
        mark = read(item.message.text) if item.message.kind == "scope" else None
        if mark is None:
            continue
        if mark.act == "open":
            frames = (*frames, Frame(mark.scope, mark.text, item.depth))
        elif frames and frames[-1].scope == mark.scope:
            frames = reduced(frames, mark)
    return frames


def mark_of(event: Event) -> Mark | None:
    """The mark that an event is."""
    return read(chat.parse(event.raw).text) if event.kind == "scope" else None


def _message(mark: Mark) -> Message:
    return chat.build("user", line(mark), kind="scope")


def _is(message: Message, mark: Mark) -> bool:
    return message.kind == "scope" and read(message.text) == mark


def _words(event: Event) -> str:
    message: Message = chat.parse(event.raw)
    return "\n".join(part.text for part in message.parts)
