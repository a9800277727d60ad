"""Any vector store of LangChain as the index of a library: for those who run one already.

    def indexes(tenant, namespace, embedder):
        return VectorStoreIndex(lambda known: Chroma(embedding_function=known), embedder.name, embedder.dimensions)

    library = Library(store.documents, embedder, indexes=indexes)

The vector store embeds what it keeps by itself, so it is made with embeddings that look our vectors up. It must give
its scores as similarities, highest first, as LangChain's own in-memory store does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

try:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise ImportError('ctxmem.agents.langchain_index needs langchain-core: pip install "ctxmem[langchain]"') from error

from ctxmem.ports import Match
from ctxmem.ports.index import checked, paired, wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class VectorStoreIndex:
    """Implements `ctxmem.ports.Index`. Safe for threads.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
    """

    def __init__(self, make: Callable[[Embeddings], VectorStore], fingerprint: str, dimensions: int) -> None:
        """Make the store.

        Args:
            make: gives an empty vector store that uses the embeddings it is given.
            fingerprint: name of the embedder.
            dimensions: length of a vector.
        """
        self.fingerprint, self.dimensions = fingerprint, dimensions
        self._known = _Known()
        self._store = make(self._known)
        self._ids: set[str] = set()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._ids)

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        rows = paired(ids, vectors, self.dimensions)
        if not len(ids):
            return
        with self._lock:
            self._known.vectors = {id: row.tolist() for id, row in zip(ids, rows, strict=True)}
            old = [id for id in ids if id in self._ids]
            if old:
                self._store.delete(old)
            self._store.add_texts(list(ids), ids=list(ids))
            self._ids.update(ids)

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        with self._lock:
            gone = [id for id in dict.fromkeys(ids) if id in self._ids]
            if gone:
                self._store.delete(gone)
                self._ids.difference_update(gone)
            return len(gone)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        k = wanted(k)
        rows = checked(vectors, self.dimensions)
        with self._lock:
            allowed = self._ids if among is None else self._ids & set(among)
            return [self._best(row.tolist(), min(k, len(allowed)), allowed) for row in rows]

    def _best(self, vector: list[float], k: int, allowed: Collection[str]) -> list[Match]:
        """Ask for ever more until enough may be found, and for those that tie with the last."""
        width = k + 1 if k else 0
        while width:
            self._known.vectors = {"": vector}
            found = self._store.similarity_search_with_score("", k=min(width, len(self._ids)))
            scored = [Match(document.page_content, float(score)) for document, score in found]
            kept = [match for match in scored if match.id in allowed]
            tied = len(kept) > k and kept[k].score < kept[k - 1].score
            if tied or width >= len(self._ids):
                return sorted(kept, key=lambda match: (-match.score, match.id))[:k]
            width *= 4
        return []


class _Known(Embeddings):
    """Embeddings that look vectors up by text: a text is an id, and the empty one is the query."""

    def __init__(self) -> None:
        self.vectors: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[text]
