"""What a write does, decided before it is written: what is new, what was known, whose place it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import chain

from ctxmem.ids import new_id
from ctxmem.memories.asked import Outcome, Terms
from ctxmem.memories.lexicon import Lexicon
from ctxmem.memories.sameness import digest, near
from ctxmem.memories.shelf import Shelf, spoken
from ctxmem.memories.statements import Statement
from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope, Source

_ALIKE = 5
"""Nearest memories by words that a new one is compared with."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A statement that may become a memory.

    Attributes:
        statement: the words.
        sources: the spans it stands on.
        method: how it was made.
    """

    statement: Statement
    sources: tuple[Source, ...] = ()
    method: str = "verbatim"


def source(event_id: str, session_id: str, text: str, span: tuple[int, int]) -> Source:
    """The source of a span of an event's text."""
    start, end = span
    hashed = hashlib.sha256(text[start:end].encode("utf-8", "replace")).hexdigest()
    return Source(event_id, start, end, session_id, hashed)


@dataclass(slots=True)
class Writing:
    """Decides what a call writes, statement by statement, each seeing what those before it did.

    Attributes:
        shelf: the user's memories as they are.
        who: whose the new ones are.
        terms: what they carry.
        now: seconds since 1970.
    """

    shelf: Shelf
    who: Scope
    terms: Terms
    now: float
    outcomes: list[Outcome] = field(default_factory=list)
    _put: dict[str, Memory] = field(default_factory=dict)
    _cited: dict[str, tuple[Source, ...]] = field(default_factory=dict)
    _changes: list[MemoryChange] = field(default_factory=list)
    _fresh: Lexicon = field(default_factory=Lexicon)

    def take(self, candidates: Iterable[Candidate]) -> Writing:
        """Decide on all of them; returns itself."""
        for candidate in candidates:
            self._one(candidate)
        return self

    def batch(self) -> MemoryBatch:
        """What to write."""
        return MemoryBatch(
            self.who.user_id,
            expected=self.shelf.version,
            put=tuple(self._put.values()),
            sources=self._cited,
            changes=tuple(self._changes),
        )

    def _one(self, candidate: Candidate) -> None:
        said = candidate.statement
        made = self._new(candidate)
        known = self._known(made)
        if known is not None:
            self._cite(known, candidate.sources)
            self.outcomes.append(Outcome(known.id, known.text, "NONE"))
            return
        older = self._older(said) if said.topic is not None else None
        if older is None:
            self._add(made, "")
        elif made.valid_from >= older.valid_from:
            self._supersede(older, made)
        else:  # told late: it was true until the one that is known began
            until = replace(made, status="superseded", valid_to=older.valid_from, superseded_by=older.id)
            self._add(until, f"was true before {older.id}")

    def _new(self, candidate: Candidate) -> Memory:
        said, terms = candidate.statement, self.terms
        return Memory(
            id=new_id("mem"),
            user_id=self.who.user_id,
            agent_id=self.who.agent_id,
            session_id=self.who.session_id,
            text=said.text,
            speaker=said.speaker,
            topic=said.topic.key if said.topic is not None else "",
            method=candidate.method,
            valid_from=self.now if terms.valid_from is None else float(terms.valid_from),
            recorded_at=self.now,
            expires_at=None if terms.expires_at is None else float(terms.expires_at),
            digest=digest(said.text, said.speaker),
            metadata=dict(terms.metadata),
            sources=candidate.sources,
        )

    def _now(self, memory_id: str) -> Memory:
        """A memory with what this call did to it."""
        return self._put.get(memory_id) or self.shelf.memories[memory_id]

    def _known(self, made: Memory) -> Memory | None:
        """The memory that says the same already, told to the same agent."""
        for lexicon in (self._fresh, self.shelf.lexicon):
            scores = lexicon.scores(spoken(made))
            for memory_id in nlargest(_ALIKE, scores, key=scores.__getitem__):
                memory = self._now(memory_id)
                same = memory.digest == made.digest or near(memory.text, made.text)
                if same and self._comparable(memory, made):
                    return memory
        return None

    def _comparable(self, memory: Memory, made: Memory) -> bool:
        alive = memory.holds(None, self.now)
        return alive and memory.agent_id == made.agent_id and memory.speaker.casefold() == made.speaker.casefold()

    def _older(self, said: Statement) -> Memory | None:
        """The newest memory that holds and settles the same."""
        key = said.topic.key if said.topic is not None else ""
        settled = [one.id for one in chain(self.shelf.memories.values(), self._put.values()) if one.topic == key]
        same = [self._now(memory_id) for memory_id in settled]
        alive = [one for one in same if one.holds(None, self.now) and one.agent_id == self.who.agent_id]
        return max(alive, key=lambda one: (one.valid_from, one.id), default=None)

    def _cite(self, known: Memory, sources: tuple[Source, ...]) -> None:
        if known.id in self._put:
            merged = tuple(dict.fromkeys((*known.sources, *sources)))
            self._put[known.id] = replace(known, sources=merged)
        elif sources:
            self._cited[known.id] = (*self._cited.get(known.id, ()), *sources)

    def _supersede(self, older: Memory, made: Memory) -> None:
        made = replace(made, supersedes=older.id)
        fresh = older.id not in self.shelf.memories
        gone = replace(
            older,
            status="superseded",
            valid_to=made.valid_from,
            invalidated_at=self.now,
            superseded_by=made.id,
            revision=older.revision if fresh else self.shelf.memories[older.id].revision + 1,
        )
        self._put[gone.id] = gone
        self._changes.append(
            MemoryChange(gone.id, "SUPERSEDE", gone.text, gone.text, f"superseded by {made.id}", self.now)
        )
        self._add(made, f"supersedes {older.id}")

    def _add(self, made: Memory, reason: str) -> None:
        self._put[made.id] = made
        self._fresh.put(made.id, spoken(made))
        self._changes.append(MemoryChange(made.id, "ADD", "", made.text, reason, self.now))
        self.outcomes.append(Outcome(made.id, made.text, "UPDATE" if made.supersedes else "ADD", made.supersedes))
