"""Hybrid search over texts by id: vectors and words side by side, fused.

from ctxmem.lm.encoder import embedder_named
from ctxmem.retrieval.hybrid import Hybrid

found = Hybrid(embedder_named())
found.add({"a": "Ada lives in Porto.", "b": "The tram stops at nine."})
found.search("where does Ada live?", 1)
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput
from ctxmem.ports import Embedder, Index, Keeping, Lookahead, Match
from ctxmem.ports.index import Returning, Ticket
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.fuse import DENSE, weighted
from ctxmem.retrieval.query import MODES, Mode
from ctxmem.retrieval.words import WordIndex

DEPTH = 100
"""Candidates that each side gives to the fusion, at least."""


class Hybrid:
    """Texts under ids, found by vectors, by words, or by both. Safe for threads.

    Whoever adds and removes decides what is the truth; this may be lost and filled again.

    Args:
        embedder: makes the vectors; None searches by words alone.
        dense: weight of the vectors against the words, 0..1.
        index: where the vectors go; a flat exact one by default.
    """

    def __init__(self, embedder: Embedder | None, *, dense: float = DENSE, index: Index | None = None) -> None:
        if not 0 <= dense <= 1:
            raise InvalidInput(f"the weight of the vectors must be between 0 and 1, got {dense}", param="dense")
        self._embedder = embedder
        self.weight = dense
        self._index = index
        self._words = WordIndex()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._words)

    def add(self, texts: Mapping[str, str], vectors: NDArray[np.float32] | None = None) -> None:
        """Put texts in; one whose id is there takes the old one's place.

        Args:
            texts: text by id.
            vectors: (len(texts), dimensions) their vectors, when they are known; else they are made here.

        Raises:
            InvalidInput: vectors of another number or dimension, or not finite. Nothing is changed.
            Unavailable: the embedder is out of reach. Nothing is changed.
        """
        if not texts:
            return
        if vectors is None and self._embedder is not None:
            vectors = self._embedder.embed(list(texts.values()))
        with self._lock:
            if vectors is not None:
                self._vectors.add(list(texts), vectors)
            self._words.add(texts)

    def add_words(self, texts: Mapping[str, str]) -> None:
        """Put texts in that have no vectors yet: only their words are found."""
        with self._lock:
            if self._index is not None:
                self._index.remove(texts)
            self._words.add(texts)

    def remove(self, ids: Collection[str]) -> int:
        """Take texts out; returns how many were there."""
        with self._lock:
            if self._index is not None:
                self._index.remove(ids)
            return self._words.remove(ids)

    @property
    def keeping(self) -> Keeping | None:
        """The index, where it keeps vectors on a disk."""
        return self._index if isinstance(self._index, Keeping) else None

    def likeness(self, one: str, other: str) -> float:
        """Inner product of the vectors of two texts; 0 when one has none, or the index does not give vectors back."""
        if not isinstance(self._index, Returning):
            return 0.0
        with self._lock:
            pair = self._index.vectors([one, other])
        return float(pair[0] @ pair[1])

    def lookahead(self, vector: NDArray[np.float32], *, expect: float, growing: bool = False) -> Ticket | None:
        """Have the index get ready for a search near this (dimensions,) vector, if it can; see `Lookahead`."""
        able = self._index if isinstance(self._index, Lookahead) else None
        return able.lookahead(vector, expect=expect, growing=growing) if able else None

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: Mode = "hybrid",
        among: Collection[str] | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> list[Match]:
        """The best `k` or fewer texts, best first; equal scores by id.

        Args:
            query: what is asked.
            k: most finds wanted.
            mode: `hybrid`, `dense` (vectors alone) or `words` (BM25 alone).
            among: ids that may be found; None for all.
            vector: (dimensions,) the query's, when it is known.

        Raises:
            InvalidInput: a negative `k`, an unknown mode, or no embedder for a dense search.
            Unavailable: the embedder is out of reach.
        """
        known = {} if vector is None else {query: vector}
        return self.search_all([query], k, mode=mode, among=among, known=known)[0]

    def search_all(
        self,
        queries: Sequence[str],
        k: int,
        *,
        mode: Mode = "hybrid",
        among: Collection[str] | None = None,
        known: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> list[list[Match]]:
        """The same for several queries, whose vectors are made, and searched for, together.

        Args:
            queries: what is asked.
            k: most finds wanted of each.
            mode: as `search`.
            among: as `search`.
            known: (dimensions,) vectors of those queries that have one.

        Raises:
            InvalidInput, Unavailable: as `search`.
        """
        if k < 0 or mode not in MODES:
            raise InvalidInput(f"k must not be negative and mode one of {', '.join(MODES)}; got {k}, {mode!r}")
        without = self._embedder is None and not set(queries) <= set(known or ())
        if mode == "words" or (mode == "hybrid" and without):
            with self._lock:
                return [self._words.search(query, k, among=among) for query in queries]
        asked = self._asked(queries, known or {})
        with self._lock:
            if mode == "dense":
                return self._vectors.search(asked, k, among=among)
            depth = max(DEPTH, 2 * k)
            near = self._vectors.search(asked, depth, among=among)
            said = [self._words.search(query, depth, among=among) for query in queries]
            sides = zip(queries, asked, near, said, strict=True)
            return [weighted(self._scored(*side), (self.weight, 1 - self.weight), k) for side in sides]

    def _scored(
        self, query: str, asked: NDArray[np.float32], by_vectors: Sequence[Match], by_words: Sequence[Match]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Both sides' candidates, each scored by both sides: by vectors, by words."""
        near = {match.id: match.score for match in by_vectors}
        missing = [match.id for match in by_words if match.id not in near]
        if missing:
            near |= {m.id: m.score for m in self._vectors.search(asked[None], len(missing), among=missing)[0]}
        ids = list(dict.fromkeys([*near, *missing]))
        return near, dict(zip(ids, self._words.of(query, ids), strict=True))

    def _asked(self, queries: Sequence[str], known: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """(queries, dimensions) vectors."""
        new = [query for query in dict.fromkeys(queries) if query not in known]
        if not new:
            return np.array([known[query] for query in queries], dtype=np.float32)
        if self._embedder is None:
            raise InvalidInput("a dense search needs an embedder", param="mode")
        made = {**known, **dict(zip(new, self._embedder.embed(new, query=True), strict=True))}
        return np.array([made[query] for query in queries], dtype=np.float32)

    @property
    def _vectors(self) -> Index:
        """The index, made with the first vectors."""
        if self._index is None:
            if self._embedder is None:
                raise InvalidInput("vectors need an embedder that says which they are", param="vectors")
            self._index = FlatIndex(self._embedder.name, self._embedder.dimensions)
        return self._index
