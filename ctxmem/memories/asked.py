"""What callers say and get: terms of a memory, how to search, what was done, what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from ctxmem.errors import InvalidInput
from ctxmem.memory import Memory, Scope

Done = Literal["ADD", "UPDATE", "NONE"]

MOST_METADATA = 16_384
"""Characters of a memory's metadata as JSON."""

MOST_FOUND = 1_000
"""Memories that one search gives at most."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a memory carries besides its words.

    Attributes:
        metadata: the caller's own; has a JSON form.
        valid_from: when it began to be true, seconds since 1970; None for now.
        expires_at: when it is to be forgotten, seconds since 1970; None for never.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    valid_from: float | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("valid_from", "expires_at"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and isfinite(value)):
                raise InvalidInput(f"{name} is a time in seconds since 1970", param=name)
        from json import dumps

        try:
            written = dumps(self.metadata, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"metadata has no JSON form: {error}", param="metadata") from error
        if not isinstance(self.metadata, Mapping) or len(written) > MOST_METADATA:
            raise InvalidInput(f"metadata is an object of at most {MOST_METADATA} characters", param="metadata")


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to search.

    Attributes:
        top_k: most memories to give.
        filters: conditions on fields and metadata, see `ctxmem.memories.filters`.
        threshold: least score, 0 to 1.
        as_of: the moment whose truth is asked for, seconds since 1970; None for now.
        rerank: read query and candidate together, where a reranker is set.
        whole: give what was said in one message together, see `ctxmem.memories.messages`.
    """

    top_k: int = 10
    filters: Mapping[str, Any] | None = None
    threshold: float = 0.0
    as_of: float | None = None
    rerank: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.top_k <= MOST_FOUND:
            raise InvalidInput(f"top_k is 1 to {MOST_FOUND}", param="top_k")
        for name in ("threshold", "as_of"):
            if not isfinite(getattr(self, name) or 0.0):
                raise InvalidInput(f"{name} is a number", param=name)


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that a search found, or a message.

    Attributes:
        memory: what was found; of a whole message the best memory.
        score: higher is better; 0 to 1 unless a reranker had a say.
        why: the parts of the score by name: `lexical`, `dense`, `rerank`.
        beside: the memories of a whole message that hold, in the order in which they were said.
    """

    memory: Memory
    score: float
    why: Mapping[str, float]
    beside: tuple[Memory, ...] = ()

    @property
    def text(self) -> str:
        """The words that were found."""
        return " ".join(one.text for one in self.beside or (self.memory,))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave.

    Attributes:
        hits: best first.
        by: what ranked them: `lexical`, `hybrid`, and `+rerank` behind it.
    """

    hits: tuple[Hit, ...]
    by: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one statement.

    Attributes:
        id: the memory that holds it now.
        text: its words.
        event: `ADD`; `UPDATE` when it took an older one's place; `NONE` when it was known.
        supersedes: id of the older one; empty for none.
    """

    id: str
    text: str
    event: Done
    supersedes: str = ""


def scope(who: Scope | str) -> Scope:
    """Whose memories are meant; a text names a user.

    Raises:
        InvalidInput: nobody is named, or by what is no name.
    """
    named = Scope(who) if isinstance(who, str) else who
    if named.empty:
        raise InvalidInput("say whose: a user_id, an agent_id or a session_id", param="user_id")
    for name in ("user_id", "agent_id", "session_id"):
        value = getattr(named, name)
        if not isinstance(value, str) or len(value) > 256 or (value and not value.isprintable()):
            raise InvalidInput(f"{name} is at most 256 printable characters", param=name)
    return named
