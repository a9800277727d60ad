"""LangChain's seam for retrieved documents: each one shortened to what its query needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.langchain_compressor needs langchain-core: pip install "ctxmem[langchain]"'
    ) from error

from ctxmem.compressors.budgets import Ratio, spend
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.outcome import Compressed
from ctxmem.errors import InvalidInput


class CtxMemCompressor(BaseDocumentCompressor):
    """Shortens retrieved documents: `ContextualCompressionRetriever(base_compressor=CtxMemCompressor(...), ...)`.

    Documents come back in their order as new objects; those given stay as they are. What happened stands in the
    metadata under `ctxmem`: tokens before and after, and the reason where a document stayed whole.

    Attributes:
        compressor: a `Compressor`; how texts are shortened; its counter is the target model's.
        budget: tokens of all documents together, each getting its share; give either this or `ratio`. A document that
            has to stay whole, such as code, may take more; its reason says so.
        ratio: share of each document's tokens to keep, in (0, 1].

    Raises:
        ValidationError: no compressor; both or none of budget and ratio, or one out of range.
    """

    compressor: Any
    budget: int | None = None
    ratio: float | None = None

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not isinstance(self.compressor, Compressor):
            raise InvalidInput(f"compressor must be a Compressor, got {self.compressor!r}", param="compressor")
        spend(self.budget, ratio=self.ratio)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The documents, shortened for the query; `callbacks` hear nothing, since no model of LangChain's runs."""
        del callbacks
        counts = self.compressor.counter.texts([document.page_content for document in documents])
        total = sum(counts)
        share = self.ratio if self.ratio is not None else min(1.0, (self.budget or 0) / max(1, total))
        return [self._shortened(document, share, query) for document in documents]

    def _shortened(self, document: Document, share: float, query: str) -> Document:
        done = self.compressor(document.page_content, Ratio(share), query=query)
        metadata = {**document.metadata, "ctxmem": _account(done)}
        return document.model_copy(update={"page_content": done.text or "", "metadata": metadata})


def _account(done: Compressed) -> dict[str, Any]:
    return {"tokens_before": done.tokens_before, "tokens_after": done.tokens_after, "reason": done.reason}
