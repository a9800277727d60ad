"""What is asked of documents, and what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ctxmem.document import Filter
from ctxmem.errors import InvalidInput
from ctxmem.ports import Counter

Mode = Literal["hybrid", "dense", "words"]
MODES: tuple[Mode, ...] = ("hybrid", "dense", "words")

MOST = 1000
"""Finds of one search, at most."""
LONGEST = 20_000
"""Characters of a query; a longer one is no query."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search.

    Attributes:
        text: what is asked.
        namespace: the collection to search.
        k: most finds wanted.
        mode: `hybrid`, `dense` or `words`.
        filter: which documents may be found.
        rerank: whether a reranker reads the best candidates together with the query.
        mmr: relevance against diversity, 0..1; None for relevance alone.
        deadline: seconds that reranking may take; None for no limit.
        also: texts that are searched with beside the first, see `ctxmem.retrieval.pipelines`; reranking reads the first
            alone.
        vector: the text's vector, where it is known; a dense search then needs no text.
    """

    text: str
    namespace: str = "default"
    k: int = 10
    mode: Mode = "hybrid"
    filter: Filter = field(default_factory=Filter)
    rerank: bool = False
    mmr: float | None = None
    deadline: float | None = None
    also: tuple[str, ...] = ()
    vector: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        needed = self.vector is None or self.mode != "dense" or self.rerank
        if (needed and not self.text.strip()) or len(self.text) > LONGEST:
            raise InvalidInput(f"a query has 1 to {LONGEST} characters, got {len(self.text)}", param="query")
        if any(0xD800 <= ord(sign) < 0xE000 for sign in self.text):
            raise InvalidInput("a query is text; this one has half a character", param="query")
        if not isinstance(self.k, int) or not 0 <= self.k <= MOST:
            raise InvalidInput(f"top_k must be between 0 and {MOST}, got {self.k!r}", param="top_k")
        if self.mode not in MODES:
            raise InvalidInput(f"unknown mode {self.mode!r}; known: {', '.join(MODES)}", param="mode")
        if self.mmr is not None and not 0 <= self.mmr <= 1:
            raise InvalidInput(f"mmr must be between 0 and 1, got {self.mmr}", param="mmr")


@dataclass(frozen=True, slots=True)
class Found:
    """One chunk that was found.

    Attributes:
        id: the chunk.
        document_id: its document.
        text: what it says.
        score: how well it answers; higher is better, comparable within one search only.
        start: its first character in the document's text.
        end: the character after its last.
        lead: what it stands under or follows.
        title: of its document.
        metadata: of its document.
        at: time of its document, seconds since 1970.
    """

    id: str
    document_id: str
    text: str
    score: float
    start: int
    end: int
    lead: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Results:
    """What a search found.

    Attributes:
        found: best first.
        exact: whether the vectors were searched exactly and completely.
        coverage: share of the chunks that might be found which have a vector.
        degraded: what could not be done, such as `embedder` (words alone were searched), `reranker`, `embedding` (some
            chunks still wait for their vectors), or `rows` (vectors on disk are damaged, and their codes stood in; the
            next search reads them anew); empty when all was done.
        stats: counts and milliseconds by name.
    """

    found: tuple[Found, ...] = ()
    exact: bool = True
    coverage: float = 1.0
    degraded: tuple[str, ...] = ()
    stats: Mapping[str, float] = field(default_factory=dict)


def within(found: Sequence[Found], budget: int, count: Counter) -> tuple[Found, ...]:
    """The best finds that fit into so many tokens together; one that is too long is passed over.

    Raises:
        InvalidInput: a negative budget.
    """
    if budget < 0:
        raise InvalidInput(f"the budget must not be negative, got {budget}", param="budget")
    kept: list[Found] = []
    for one, tokens in zip(found, count.texts([one.text for one in found]), strict=True):
        if tokens <= budget:
            kept.append(one)
            budget -= tokens
    return tuple(kept)
