"""One search: candidates from both sides, read again by a reranker, made diverse, and put into words."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ctxmem.document import Chunk, Document
from ctxmem.errors import ModelError, Unavailable
from ctxmem.ports import DocumentStore, Match, Remembering, Reranker, reranker_of
from ctxmem.retrieval.fuse import IN_CHATS, RERANKED, diverse, read_again, weighted
from ctxmem.retrieval.kept import Places, name
from ctxmem.retrieval.links import followed, names
from ctxmem.retrieval.query import Found, Mode, Query, Results
from ctxmem.retrieval.shelved import Shelved

READ_AGAIN = 50
"""Candidates that a reranker reads, at least."""
_WIDER = 4  # times as many candidates as are wanted, for diversity to choose from


Known = Mapping[str, NDArray[np.float32]]
"""Vectors of texts."""


class Searching:
    """A search under way; `known` has the vectors of those of its texts that have one."""

    def __init__(
        self, store: DocumentStore, tenant: str, query: Query, shelved: Shelved, reranker: Reranker | None, known: Known
    ) -> None:
        self._store, self._tenant, self._query = store, tenant, query
        self._shelved, self._known = shelved, known
        self._reranker = reranker_of(reranker, tenant)
        self._degraded: list[str] = []

    def name(self) -> str:
        """Of all that decides what is found; see `ctxmem.retrieval.kept`."""
        reader = self._reranker if self._query.rerank else None
        try:
            return name(self._query, self._shelved.mark(), reader.name if reader is not None else "")
        except (Unavailable, ModelError):
            return name(self._query, self._shelved.mark(), "away")  # as the search will find, too

    def places(self) -> Places:
        """Do it; what is found is not in words yet."""
        query = self._query
        among = self._shelved.among(query.filter)
        matches = self._first(among)
        if query.rerank:
            matches = self._again(matches)
        if query.mmr is not None:
            matches = diverse(matches, query.k, alike=self._shelved.hybrid.likeness, relevance=query.mmr)
        covered = 1.0 if query.mode == "words" else self._shelved.covered(among)
        if covered < 1:
            self._degraded.append("embedding")
        kept = self._shelved.hybrid.keeping if query.mode != "words" else None
        if kept and kept.damaged:
            self._degraded.append("rows")
        exact = covered == 1 and not {"embedder", "rows"} & set(self._degraded) and not (kept and kept.approximate)
        return Places(list(matches[: query.k]), exact, covered, tuple(self._degraded), self._counts())

    def results(self, places: Places, started: float) -> Results:
        """What is at the places, in words; `started` is on the monotonic clock, in seconds."""
        if "cached" in places.counts:
            self._shelved.forgo(self._query.text)
        found = self._found(places.matches)
        stats = places.counts | {"milliseconds": round(1000 * (time.monotonic() - started), 3)}
        return Results(found, places.exact, places.coverage, places.degraded, stats)

    def _counts(self) -> dict[str, float]:
        """What there was to search, and of what was read again how much was known already."""
        counts: dict[str, float] = {"chunks": len(self._shelved.hybrid)}
        if self._query.rerank and isinstance(self._reranker, Remembering):
            counts["remembered"] = self._reranker.remembered
        return counts

    def _first(self, among: Collection[str] | None) -> list[Match]:
        """Candidates; by words alone when the embedder is out of reach."""
        query = self._query
        depth = max(query.k, READ_AGAIN if query.rerank else 0, _WIDER * query.k if query.mmr is not None else 0)
        try:
            return self._fused(depth, query.mode, among)
        except (Unavailable, ModelError):
            if query.mode == "dense":
                raise
            self._degraded.append("embedder")
            return self._fused(depth, "words", among)

    def _fused(self, depth: int, mode: Mode, among: Collection[str] | None) -> list[Match]:
        """The finds of the query's text; when there are more texts, of all with equal weights."""
        texts = [self._query.text, *self._query.also]
        sides = self._shelved.hybrid.search_all(texts, depth, mode=mode, among=among, known=self._known)
        if len(sides) == 1:
            return sides[0]
        return weighted([{m.id: m.score for m in side} for side in sides], [1.0] * len(sides), depth)

    def _chunks(self, matches: Sequence[Match]) -> dict[str, Chunk]:
        chunks = self._store.chunks(self._tenant, self._query.namespace, [match.id for match in matches])
        return {chunk.id: chunk for chunk in chunks}

    def _heads(self, chunks: Collection[Chunk]) -> dict[str, Document]:
        """The documents that they are of, without their texts."""
        documents = list(dict.fromkeys(chunk.document_id for chunk in chunks))
        return self._store.documents(self._tenant, self._query.namespace, documents)

    def _again(self, matches: Sequence[Match]) -> list[Match]:
        """The candidates by both stages' scores and the names they say; as they are with no reranker in time."""
        if self._reranker is None:
            self._degraded.append("reranker")
            return list(matches)
        chunks = self._chunks(matches)
        first = {match.id: match.score for match in matches if match.id in chunks}
        try:
            said = [chunks[id].searched for id in first]
            scores = self._reranker.score(self._query.text, said, deadline=self._query.deadline) if said else []
        except (Unavailable, ModelError):
            self._degraded.append("reranker")
            return list(matches)
        texts = {id: chunk.text for id, chunk in chunks.items()}
        known = {id: names(chunk.lead) for id, chunk in chunks.items()}
        weight = RERANKED + self._talk(chunks.values()) * (IN_CHATS - RERANKED)
        return followed(read_again(first, scores, len(first), weight=weight), texts, known)

    def _talk(self, chunks: Collection[Chunk]) -> float:
        """The share of them that are turns of a chat."""
        heads = self._heads(chunks)
        kinds = [heads[chunk.document_id].kind for chunk in chunks if chunk.document_id in heads]
        return kinds.count("chat") / max(1, len(kinds))

    def _found(self, matches: Sequence[Match]) -> tuple[Found, ...]:
        """What was found, in words; a chunk that was deleted meanwhile is left out."""
        chunks = self._chunks(matches)
        heads = self._heads(chunks.values())
        return tuple(
            Found(
                chunk.id,
                chunk.document_id,
                chunk.text,
                match.score,
                chunk.start,
                chunk.end,
                lead=chunk.lead,
                title=heads[chunk.document_id].title,
                metadata=heads[chunk.document_id].metadata,
                at=heads[chunk.document_id].at,
            )
            for match in matches
            if (chunk := chunks.get(match.id)) is not None and chunk.document_id in heads
        )
