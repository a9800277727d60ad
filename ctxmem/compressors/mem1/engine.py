"""One session's memory: its log, its live state, and what was said since the state was last brought up to date.

>>> from ctxmem.testing import WordCounter
>>> memory = Mem1("Find the capital of France", WordCounter(), knobs=Knobs(b_state=80, cadence="every=2"))
>>> memory.add("obs", "Paris is the capital of France. It rained.")
'e1'
>>> memory.consolidate()
>>> print(memory.state.text())
Goal: Find the capital of France
i1 facts: Paris is the capital of France.
i2 facts: It rained.
>>> memory.rebuild() == memory.state
True
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import cast

from ctxmem.compressors.mem1 import log as chain
from ctxmem.compressors.mem1.apply import Turn, patch, within
from ctxmem.compressors.mem1.cadence import Course, Now
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.compressors.mem1.ladder import Updater, broken
from ctxmem.compressors.mem1.log import Change, Kind, StateEvent
from ctxmem.compressors.mem1.ops import Op
from ctxmem.compressors.mem1.prompts import mark
from ctxmem.compressors.mem1.recall import Hit, Index, Search, excerpt
from ctxmem.compressors.mem1.state import State, begin, pinned
from ctxmem.effects import Answer, Steps, drive
from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.ports import Complete, Counter
from ctxmem.types import Message

SNAPSHOT = 32
"""Versions between snapshots: a state is rebuilt from the nearest one."""

_ROLES = ("user", "assistant", "tool", "obs")


class Mem1:
    """A session's memory. Its values are safe to share; the object itself belongs to one thread at a time."""

    def __init__(
        self,
        goal: str,
        count: Counter,
        *,
        knobs: Knobs | None = None,
        pins: Sequence[str] = (),
        log: Sequence[StateEvent] = (),
        fence: str = "",
    ) -> None:
        """Begin a memory, or take one up where its log ends.

        Args:
            goal: what it is all for; kept word for word. With a log, the log's goal counts.
            count: the target model's counter.
            knobs: budgets, mode and cadence.
            pins: what the user insists on; kept word for word.
            log: what happened before.
            fence: the mark around data; random when empty.

        Raises:
            InvalidInput: goal and pins take more than half of the state's bound.
            Conflict: the log's hash chain is broken.
        """
        self.knobs = knobs or Knobs()
        self._count = count
        self._course = Course(self.knobs.when())
        self._index = Index()
        self.search: Search = self._index
        self.log: list[StateEvent] = []
        self.state = State()
        self._said: dict[str, Turn] = {}
        self._tail: list[Turn] = []
        self._tokens: dict[str, int] = {}
        self._updates: deque[StateEvent] = deque(maxlen=64)
        if log:
            self._resume(log)
        else:
            self.fence = fence or mark()
            self._begin(begin(goal, pins, self.knobs.b_state, count))

    @property
    def tail(self) -> tuple[Turn, ...]:
        """What was said since the last consolidation, raw."""
        return tuple(self._tail)

    @property
    def turns(self) -> int:
        """Messages said so far."""
        return len(self._said)

    def add(self, role: str, text: str) -> str:
        """Log what was said, before anything else happens to it; returns the handle that recalls it.

        Args:
            role: user, assistant, tool or obs.
            text: word for word.

        Raises:
            InvalidInput: another role, or not a text.
        """
        if role not in _ROLES or not isinstance(text, str):
            raise InvalidInput(f"say a text as one of {', '.join(_ROLES)}; got {role!r}", param="role")
        handle = f"e{len(self._said) + 1}"
        self._write(Change(cast(Kind, role), {"id": handle, "text": text, "tokens": self._count.texts([text])[0]}))
        return handle

    def pin(self, text: str) -> None:
        """Keep something word for word from now on.

        Raises:
            InvalidInput: goal and pins would take more than half of the bound.
        """
        pinned(self.state, [text], self._count)
        self._write(*within(self.state, Change("pin", {"text": text}), self._count))

    def note(self, ops: Sequence[Op]) -> None:
        """Change the state without a model: what the application itself knows."""
        if ops:
            self._write(*patch(self.state, ops, (), self._count, by="app"))

    def due(self, *, remaining: float = inf, shown: int | None = None) -> bool:
        """Whether the cadence asks for a consolidation now.

        Args:
            remaining: turns that the task may still take.
            shown: tokens of the tail as a prompt shows it; None for those of its texts.
        """
        said = sum(turn.role != "assistant" for turn in self._tail)
        tokens = self._size(self._tail) if shown is None else shown
        return self._course.when.due(Now(said, tokens, self.state.tokens, remaining, self._course))

    def _size(self, turns: Iterable[Turn]) -> int:
        return sum(self._tokens[turn.id] for turn in turns)

    def _updater(self, *, ask: bool = True) -> Updater:
        """How the state is brought up to date now; without the model while its circuit breaker is open."""
        willing = ask and not broken(self._updates)
        return Updater(self.knobs.mode, willing, self.knobs.max_out, self.knobs.b_obs, self.fence)

    def update(self, *, ask: bool = True) -> Steps[None]:
        """Bring the state up to date with the tail; yields what it asks of a model."""
        tail = self.tail
        changes = yield from self._updater(ask=ask).update(self.state, tail, self._count)
        self._write(*changes)

    def take(self, answer: Answer, prompt: tuple[Message, ...]) -> Steps[None]:
        """Bring the state up to date from an answer the model has already given to `prompt`."""
        changes = yield from self._updater().read(answer, self.state, self.tail, self._count, prompt=prompt)
        self._write(*changes)

    def consolidate(self, complete: Complete | None = None, *, timeout_s: float = 60.0) -> None:
        """Bring the state up to date now, with a model or without one.

        Args:
            complete: the model; None to extract.
            timeout_s: seconds it may take to answer.
        """
        steps = self.update(ask=complete is not None)
        drive(steps, cast(Complete, complete), timeout_s=timeout_s)

    def recall(self, asked: str, k: int = 5) -> tuple[Hit, ...]:
        """What was said, by handle word for word, else by a search over all of it.

        Args:
            asked: the handle of an event (`e12`) or of an item (`i7`, whose sources are given), or a query.
            k: how many hits a query gives.
        """
        handle = asked.strip().lower()
        if handle in self._said:
            found: tuple[Hit, ...] = (Hit(handle, self._said[handle].text, 1.0),)
        elif sources := self._sources(handle):
            found = tuple(Hit(id, self._said[id].text, 1.0) for id in sources if id in self._said)
        else:
            found = tuple(self.search(asked, k))
        self._write(Change("recall", {"asked": asked[:500], "found": [hit.id for hit in found]}))
        return found

    def recollect(self, queries: Sequence[str], *, k: int = 3) -> str:
        """What the log says on some queries beyond the raw tail: the best sentences, within `b_recall` tokens.

        Args:
            queries: what to look for.
            k: events looked at for each.
        """
        raw = {turn.id for turn in self._tail}
        hits = [hit for query in queries for hit in self.search(query, k) if hit.id not in raw]
        return excerpt(hits, " ".join(queries), self.state.text(), self.knobs.b_recall, self._count)

    def said(self, handle: str) -> Turn:
        """A turn by its handle.

        Raises:
            NotFound: nothing was said under it.
        """
        if handle not in self._said:
            raise NotFound(f"nothing was said under {handle!r}")
        return self._said[handle]

    def rebuild(self, upto: int | None = None) -> State:
        """The state as its log alone gives it, up to a position or to the end."""
        return chain.rebuild(self.log, upto=upto)

    def fork(self, at: int | None = None) -> Mem1:
        """A memory of its own that shares the past up to a position of the log.

        Raises:
            InvalidInput: the log has no such position.
        """
        log = chain.fork(self.log, len(self.log) - 1 if at is None else at)
        return Mem1("", self._count, knobs=self.knobs, log=log)

    def _sources(self, handle: str) -> Sequence[str]:
        """Sources of an item, live or evicted, by its id."""
        if not (handle[:1] == "i" and handle[1:].isdigit()):
            return ()
        item = self.state.by_id.get(handle)
        if item is not None:
            return item.src
        evictions = (event.payload["recall"] for event in reversed(self.log) if event.kind == "evict")
        return next((recall[handle] for recall in evictions if handle in recall), ())

    def _begin(self, state: State) -> None:
        said = {"goal": state.goal, "pins": list(state.pins), "bound": state.bound, "tokens": state.tokens}
        self._write(Change("init", {**said, "fence": self.fence}))

    def _resume(self, log: Sequence[StateEvent]) -> None:
        wrong = chain.broken(log)
        if wrong is not None:
            raise Conflict(f"the state's log is damaged at position {wrong}")
        self.fence = str(log[0].payload.get("fence", "data"))
        for event in log:
            self._absorb(event)

    def _write(self, *changes: Change) -> None:
        for event in chain.extend(self.log[-1:], changes, at=time.time()):
            self._absorb(event)

    def _absorb(self, event: StateEvent) -> None:
        self.log.append(event)
        self.state = chain.after(self.state, event.kind, event.payload)
        if event.kind in _ROLES:
            turn = Turn(event.payload["id"], event.kind, event.payload["text"], len(self._said))
            self._said[turn.id] = turn
            self._tail.append(turn)
            self._tokens[turn.id] = event.payload["tokens"]
            if event.kind != "assistant":
                self._course.turn(event.payload["tokens"])
            self._index.add(turn.id, turn.text)
        elif event.kind in ("patch", "rewrite", "degraded"):
            self._updates.append(event)
            rest = [turn for turn in self._tail if turn.at >= self.state.covers]
            if len(rest) < len(self._tail):
                self._course.cut(self._size(self._tail) - self._size(rest), self.state.tokens)
            self._tail = rest
