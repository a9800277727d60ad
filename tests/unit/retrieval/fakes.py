"""Models that need no weights, and when two results are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctxmem.errors import Unavailable
from ctxmem.ports import Match
from ctxmem.retrieval.library import Library, Query


class Hashing:
    """An embedder of 32 dimensions: words by their hash. Counts what it embeds, and may be told to fail."""

    dimensions = 32

    def __init__(self, name: str = "hashing-1", *, fails_after: int | None = None, bad: float | None = None) -> None:
        self.name = name
        self.seen: list[str] = []
        self._fails_after, self._bad = fails_after, bad

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
        if not query:
            self.seen += texts
            if self._fails_after is not None and len(self.seen) > self._fails_after:
                raise Unavailable("the embedder is away")
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % self.dimensions] += 1
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows if self._bad is None else np.full_like(rows, self._bad)


class Judge:
    """A reranker that likes one word; `asked` has the queries it was given."""

    name = "judge"

    def __init__(self, word: str, *, away: bool = False, odd: float | None = None) -> None:
        self._word, self._away, self._odd = word, away, odd
        self.asked: list[str] = []

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        self.asked.append(query)
        if self._away:
            raise Unavailable("the reranker is away")
        return [self._odd if self._odd is not None else float(self._word in text) for text in texts]


def found(library: Library, text: str, *, tenant: str = "t", **rest: Any) -> list[str]:
    """Ids of the documents that a search finds, best first."""
    return [one.document_id for one in library.search(tenant, Query(text, "n", **rest)).found]


def alike(found: list[Match], expected: list[Match]) -> bool:
    """The same finds; sums in another order may swap those whose scores are equal but for the last bits."""
    scores, others = [m.score for m in found], [m.score for m in expected]
    if len(scores) != len(others) or not np.allclose(scores, others, atol=1e-5):
        return False
    least = min(others, default=0.0) + 1e-4
    return {m.id for m in found if m.score > least} == {m.id for m in expected if m.score > least}
