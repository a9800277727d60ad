"""Documents of ctxmem's library for LangChain: a retriever, an index, and a splitter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import BaseDocumentTransformer, Document
    from langchain_core.indexing import DeleteResponse, UpsertResponse
    from langchain_core.indexing.base import DocumentIndex
    from langchain_core.retrievers import BaseRetriever
    from pydantic import PrivateAttr
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.langchain_documents needs langchain-core: pip install "ctxmem[langchain]"'
    ) from error

from ctxmem.agents.langchain_kept import Kept, filtered
from ctxmem.errors import InvalidInput
from ctxmem.retrieval.chunk import chunked
from ctxmem.retrieval.library import Library
from ctxmem.retrieval.parse import parse
from ctxmem.retrieval.query import Query


class _Searched(BaseRetriever):
    """What the retriever and the index are asked with.

    Attributes:
        library: a `Library`; what is searched.
        tenant: whose documents.
        namespace: the collection.
        k: most documents wanted, unless `invoke(query, k=...)` says otherwise.
        mode: `hybrid`, `dense` or `words`.
        rerank: whether the library's reranker reads the best candidates again.
        filter: metadata that a document must have, or a `Filter`; None for all.
    """

    library: Any
    tenant: str = "default"
    namespace: str = "langchain"
    k: int = 4
    mode: Literal["hybrid", "dense", "words"] = "hybrid"
    rerank: bool = False
    filter: Any = None

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not isinstance(self.library, Library):
            raise InvalidInput(f"library must be a Library, got {type(self.library).__name__}", param="library")
        filtered(self.filter)

    def _query(self, text: str, k: int | None) -> Query:
        wanted = filtered(self.filter)
        return Query(text, self.namespace, self.k if k is None else k, self.mode, wanted, rerank=self.rerank)


class CtxMemRetriever(_Searched):
    """Pieces of documents that answer a question: `CtxMemRetriever(library=library, namespace="handbook", k=4)`.

    A piece's metadata are its document's, and under `ctxmem` where it stands: document, offsets, what it stands under,
    and its score.
    """

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        del run_manager
        found = self.library.search(self.tenant, self._query(query, k)).found
        return [
            Document(
                id=piece.id,
                page_content=piece.text,
                metadata={
                    **piece.metadata,
                    "ctxmem": {
                        "document_id": piece.document_id,
                        "start": piece.start,
                        "end": piece.end,
                        "lead": piece.lead,
                        "title": piece.title,
                        "score": piece.score,
                    },
                },
            )
            for piece in found
        ]


class CtxMemDocumentIndex(_Searched, DocumentIndex):
    """Documents that are put in, got back as they came, and found: LangChain's `DocumentIndex`.

    Attributes:
        user: whose the documents are that are put in; erasing the user erases them.
    """

    user: str = ""
    _kept: Kept = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._kept = Kept(self.library, self.tenant, self.namespace, self.user)

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Put documents in, in the place of those with their ids; all or none of them succeed."""
        del kwargs
        return UpsertResponse(succeeded=self._kept.add(items), failed=[])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Delete documents by id; those that are not there do not matter.

        Raises:
            InvalidInput: there are no ids.
        """
        del kwargs
        if ids is None:
            raise InvalidInput("say which documents to delete", param="ids")
        there = [str(document.id) for document in self._kept.get(dict.fromkeys(ids))]
        gone = self._kept.delete(there)
        return DeleteResponse(num_deleted=gone, num_failed=0, succeeded=there, failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Documents by id; those that are not there are left out."""
        del kwargs
        return self._kept.get(ids)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        del run_manager
        return self._kept.get(id for id, _ in self._kept.nearest(self._query(query, k)))


class CtxMemSplitter(BaseDocumentTransformer):
    """Cuts documents by their structure, as the library does: `CtxMemSplitter().transform_documents(documents)`.

    A piece's metadata are its document's, and under `ctxmem` its offsets and what it stands under.
    """

    def __init__(self, kind: str = "text") -> None:
        """Say how documents are read: text, markdown, html, json, code or chat."""
        self._kind = kind

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """The pieces, in order.

        Raises:
            InvalidInput: a document is not what the kind says.
        """
        del kwargs
        return [piece for document in documents for piece in self._pieces(document)]

    def _pieces(self, document: Document) -> Iterator[Document]:
        for piece in chunked(document.id or "", parse(document.page_content, kind=self._kind)):
            told = {"start": piece.start, "end": piece.end, "lead": piece.lead}
            yield Document(page_content=piece.text, metadata={**document.metadata, "ctxmem": told})
