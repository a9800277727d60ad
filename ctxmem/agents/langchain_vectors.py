"""LangChain's vector store in ctxmem's database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.langchain_vectors needs langchain-core: pip install "ctxmem[langchain]"'
    ) from error

from ctxmem.agents.langchain_kept import Adapted, Kept, Wanted, filtered, normalised
from ctxmem.agents.shared import IN_MEMORY, acquire, release
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.retrieval.library import Library
from ctxmem.retrieval.query import Query


class CtxMemVectorStore(VectorStore):
    """A vector store in ctxmem's database: durable when `add_documents` returns, exact, found again after a restart.

    Scores are cosines. A text without a word in it is kept, and never found.
    """

    def __init__(
        self,
        embedding: Embeddings,
        db_path: str | Path = IN_MEMORY,
        *,
        manager: ContextManager | None = None,
        namespace: str = "langchain",
        user: str = "",
    ) -> None:
        """Open the store.

        Args:
            embedding: makes the vectors; a namespace keeps to one.
            db_path: the database file; `:memory:` keeps nothing.
            manager: use this manager's database and tenant instead.
            namespace: tells several stores of one database apart.
            user: whose the documents are; erasing the user erases them.
        """
        self._embedding = embedding
        held = manager if manager is not None else acquire(db_path)
        self._owned = held if manager is None else None
        self._kept = Kept(Library(held.engine.store.documents, Adapted(embedding)), held.tenant, namespace, user)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> CtxMemVectorStore:
        """A store with these texts; `kwargs` are those of the constructor."""
        made = cls(embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Put texts in and give their ids; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: there are more or fewer ids or metadata than texts, or metadata has no JSON form; nothing is
                written.
            Conflict: the namespace holds other embeddings' vectors; nothing is written.
        """
        del kwargs
        said = list(texts)
        named, told = ids or [None] * len(said), metadatas or [{}] * len(said)
        if len(named) != len(said) or len(told) != len(said):
            raise InvalidInput(f"{len(named)} ids and {len(told)} metadata for {len(said)} texts", param="ids")
        return self._kept.add(
            [
                Document(id=id, page_content=text, metadata=metadata)
                for id, text, metadata in zip(named, said, told, strict=True)
            ]
        )

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, all of them without ids; those that are not there do not matter."""
        del kwargs
        self._kept.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id; those that are not there are left out."""
        return self._kept.get(ids)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` documents most like a text; see `similarity_search_with_score_by_vector` for `filter`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same with their cosines."""
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` documents most like a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, **kwargs)]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Wanted = None
    ) -> list[tuple[Document, float]]:
        """The `k` documents most like a vector, with their cosines, best first.

        Args:
            embedding: the vector.
            k: most documents wanted.
            filter: metadata that they must have, or a `Filter`.
        """
        scored = dict(self._nearest(embedding, k, filter))
        found = {str(document.id): document for document in self._kept.get(scored)}
        return [(found[id], score) for id, score in scored.items() if id in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`k` documents like a text and unlike each other, of the `fetch_k` most like it."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The same for a vector."""
        vectors = self._kept.vectors([id for id, _ in self._nearest(embedding, fetch_k, kwargs.get("filter"))])
        ids = list(vectors)
        if not ids:
            return []
        asked = normalised([embedding])[0]
        chosen = maximal_marginal_relevance(asked, [vectors[id].tolist() for id in ids], lambda_mult=lambda_mult, k=k)
        return self._kept.get(ids[at] for at in chosen)

    def close(self) -> None:
        """Let go of the database; a manager that was given stays open."""
        if self._owned is not None:
            release(self._owned)
            self._owned = None

    def _nearest(self, embedding: Sequence[float], k: int, wanted: Wanted) -> list[tuple[str, float]]:
        vector = tuple(normalised([embedding])[0].tolist())
        query = Query("", self._kept.namespace, k=k, mode="dense", filter=filtered(wanted), vector=vector)
        return self._kept.nearest(query)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2
