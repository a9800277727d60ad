"""Rows of the long-term memory, as values. The store keeps them; `ctxmem.memories` makes them; nobody changes one.

A memory is one statement, word for word as somebody said it, with who said it and when. It is true over an interval of
the world's time (`valid_from`, `valid_to`) and known over an interval of ours (`recorded_at`, `invalidated_at`), so
that a question can be asked as of any moment. Every memory names the spans of the log it was taken from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["active", "superseded"]
Op = Literal["ADD", "UPDATE", "SUPERSEDE", "DELETE", "NOOP"]


GENERATION = 2**32
"""Versions of a user's memories between two erasures: who knows one of an earlier generation knows nothing any more."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose memories. An empty field does not restrict a search; a new memory carries it as it is.

    Attributes:
        user_id: the user they are about.
        agent_id: the agent that they were told to.
        session_id: the session they are from.
    """

    user_id: str = ""
    agent_id: str = ""
    session_id: str = ""

    @property
    def empty(self) -> bool:
        """Whether it names nobody."""
        return not (self.user_id or self.agent_id or self.session_id)


@dataclass(frozen=True, slots=True)
class Source:
    """The span of an event that a memory stands on.

    Attributes:
        event_id: the event.
        start: first character of the span in the event's text.
        end: character after its last.
        session_id: session of the event.
        sha256: hash of the span's text, hex; shows whether a memory still says what its source says.
    """

    event_id: str
    start: int
    end: int
    session_id: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """One statement that is kept for later sessions.

    Attributes:
        id: `mem_` and 32 hex digits, time-ordered.
        user_id: the user it is about.
        agent_id: the agent it was told to.
        session_id: the session it is from.
        text: the statement.
        speaker: who said it; empty when nobody is named.
        topic: key of what it settles, such as `user:live`; a later memory of the topic supersedes it. May be empty.
        status: `active`, or `superseded` by a later one.
        method: how it was made: `verbatim`, `llm` or `import`.
        valid_from: when it began to be true in the world, seconds since 1970.
        valid_to: when it stopped; None while it holds.
        recorded_at: when it was written here.
        invalidated_at: when we learned that it no longer holds; None while it does.
        expires_at: when it is to be forgotten; None for never.
        supersedes: id of the memory whose place it took; empty for none.
        superseded_by: id of the memory that took its place; empty for none.
        revision: 1 when new, one more with every change; compare-and-set on it.
        digest: hash of the normalised statement and its speaker, 16 bytes; equal for duplicates.
        metadata: the caller's own.
        sources: where it stands in the log.
    """

    id: str
    user_id: str
    agent_id: str
    session_id: str
    text: str
    speaker: str = ""
    topic: str = ""
    status: Status = "active"
    method: str = "verbatim"
    valid_from: float = 0.0
    valid_to: float | None = None
    recorded_at: float = 0.0
    invalidated_at: float | None = None
    expires_at: float | None = None
    supersedes: str = ""
    superseded_by: str = ""
    revision: int = 1
    digest: bytes = b""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()

    @property
    def scope(self) -> Scope:
        """Whose it is."""
        return Scope(self.user_id, self.agent_id, self.session_id)

    def holds(self, at: float | None, now: float) -> bool:
        """Whether it is true at a moment of the world's time (None: now), and not expired.

        Args:
            at: seconds since 1970, or None.
            now: the present, seconds since 1970.
        """
        if self.expires_at is not None and self.expires_at <= now:
            return False
        if at is None:
            return self.status == "active" and (self.valid_to is None or self.valid_to > now)
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """One entry of a memory's history.

    Attributes:
        memory_id: the memory.
        op: what was done.
        before: its text before; empty for a new one, and once it is deleted.
        after: its text after; empty once it is deleted.
        reason: why, in a few words.
        at: seconds since 1970.
        version: place of the change in the history of all memories of the user.
    """

    memory_id: str
    op: Op
    before: str = ""
    after: str = ""
    reason: str = ""
    at: float = 0.0
    version: int = 0


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    """What one call writes to a user's memories, all or nothing.

    Attributes:
        user_id: whose; every memory of the batch is theirs.
        expected: version of the user's newest change that the writer saw; None when it does not matter.
        put: memories to insert (revision 1), or to replace when the kept one is one revision behind.
        sources: further sources of memories that stay as they are, by memory id.
        delete: ids to delete, by the revision they must be at; None for any.
        changes: entries of the history, `version` still 0.
        key: the caller's idempotency key; the same key again gives the first `result`.
        digest: hash of what was asked, 16 bytes; the same key with another digest is a conflict.
        result: JSON of the answer, kept under the key. It names memories by id and holds no words: it outlives them.
    """

    user_id: str
    expected: int | None = None
    put: tuple[Memory, ...] = ()
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    delete: Mapping[str, int | None] = field(default_factory=dict)
    changes: tuple[MemoryChange, ...] = ()
    key: str | None = None
    digest: bytes = b""
    result: bytes = b""
