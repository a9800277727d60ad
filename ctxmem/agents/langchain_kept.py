"""LangChain's documents in one namespace of ctxmem's library, and LangChain's embeddings behind its port.

A document of LangChain is one of the library, which cuts long ones and finds them by their best piece.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from ctxmem.document import Filter
from ctxmem.errors import InvalidInput
from ctxmem.retrieval.library import Library
from ctxmem.retrieval.query import MOST, Query
from ctxmem.retrieval.source import Source

Wanted = dict[str, Any] | Filter | None
"""Which documents may be found: metadata that they must have, or a filter."""


class Adapted:
    """LangChain's embeddings behind the library's port; vectors are normalised.

    Attributes:
        name: fingerprint: class and model.
    """

    def __init__(self, embeddings: Embeddings, *, name: str = "") -> None:
        self._embeddings = embeddings
        model = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", "")
        self.name = name or f"langchain:{type(embeddings).__name__}:{model}"
        self._dimensions = 0

    @property
    def dimensions(self) -> int:
        """Length of a vector; the first time, one is made to see."""
        if not self._dimensions:
            self._dimensions = len(self._embeddings.embed_query("length"))
        return self._dimensions

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """See `ctxmem.ports.Embedder`."""
        made = [self._embeddings.embed_query(one) for one in texts] if query else []
        return normalised(made or self._embeddings.embed_documents(list(texts)))


class Kept:
    """LangChain's documents in one namespace of a library."""

    def __init__(self, library: Library, tenant: str, namespace: str, user: str) -> None:
        self.library, self.tenant, self.namespace, self.user = library, tenant, namespace, user

    def add(self, documents: Sequence[Document]) -> list[str]:
        """Put documents in, in the place of those with their ids; the last of several with one id counts."""
        ids = [document.id or str(uuid.uuid4()) for document in documents]
        sources = {
            id: Source(document.page_content, id=id, kind="text", user_id=self.user, metadata=document.metadata)
            for id, document in zip(ids, documents, strict=True)
        }
        if sources:
            self.library.ingest(self.tenant, self.namespace, list(sources.values()))
        return ids

    def delete(self, ids: Sequence[str] | None) -> int:
        """Delete documents, all when None; returns how many there were."""
        gone = 0
        if ids is not None:
            return self.library.delete(self.tenant, self.namespace, ids)
        while some := list(self.library.store.documents(self.tenant, self.namespace)):
            gone += self.library.delete(self.tenant, self.namespace, some)
        return gone

    def get(self, ids: Iterable[str]) -> list[Document]:
        """Documents by id, in the order asked for; those that are not there are left out."""
        found = (self.library.store.document(self.tenant, self.namespace, id) for id in ids)
        return [Document(id=one.id, page_content=one.text, metadata=dict(one.metadata)) for one in found if one]

    def nearest(self, query: Query) -> list[tuple[str, float]]:
        """Ids of the best `k` documents with the scores of their best pieces."""
        width = query.k
        while True:
            found = self.library.search(self.tenant, replace(query, k=min(width, MOST))).found
            best: dict[str, float] = {}
            for piece in found:
                best.setdefault(piece.document_id, piece.score)
            if len(best) >= query.k or len(found) < width or width >= MOST:
                return list(best.items())[: query.k]
            width *= 4

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """A vector of each document: that of its first piece."""
        store, name = self.library.store, self.library.embedder.name if self.library.embedder else ""
        first: dict[str, str] = {}
        wanted = set(ids)
        for chunk_id, (document, _) in store.outline(self.tenant, self.namespace).items():
            if document in wanted:
                first.setdefault(document, chunk_id)
        packed = store.vectors(self.tenant, self.namespace, list(first.values()), name)
        return {id: np.frombuffer(packed[chunk], dtype="<f4") for id, chunk in first.items() if chunk in packed}


def normalised(vectors: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """(n, dimensions) vectors of length 1; one of length 0 stays."""
    made = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(made, axis=-1, keepdims=True)
    return np.divide(made, np.where(lengths == 0, 1, lengths), dtype=np.float32)


def filtered(wanted: Wanted) -> Filter:
    """As the library takes it.

    Raises:
        InvalidInput: it is neither metadata nor a filter.
    """
    if isinstance(wanted, Filter):
        return wanted
    if wanted is not None and not isinstance(wanted, dict):
        raise InvalidInput(f"a filter is a dict of metadata or a Filter, got {type(wanted).__name__}", param="filter")
    return Filter(metadata=wanted or {})
