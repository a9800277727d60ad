"""Retrieved documents, shortened through LangChain's own seam."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document

from ctxmem.agents.langchain_compressor import CtxMemCompressor
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.testing import WordCounter

COMPRESSOR = Compressor(WordCounter(), Lexical())
PROSE = (
    " ".join(f"The ship {i} of captain Name{i} came to the harbour in {1800 + i}, and then it left." for i in range(20))
    + " Its cook was Zebedee Smith of Hull."
)
DOCUMENTS = [
    Document(PROSE, id="a", metadata={"page": 3}),
    Document("short"),
    Document("", metadata={"ctx": 1}),
    Document("```python\nprint(1)\n```\n" * 20),
]


class TestDocuments:
    def test_are_shortened_for_the_query(self):
        """As a LangChain compressor; what it did stands in the metadata, what it was given is untouched."""
        made = CtxMemCompressor(compressor=COMPRESSOR, ratio=0.3)
        before = [document.model_copy(deep=True) for document in DOCUMENTS]
        found = made.compress_documents(DOCUMENTS, "Who was the cook?")
        assert isinstance(made, BaseDocumentCompressor)
        assert before == DOCUMENTS
        assert "Zebedee Smith" in found[0].page_content
        assert len(found[0].page_content.split()) <= 0.3 * len(PROSE.split())
        assert (found[0].id, found[0].metadata["page"], found[0].metadata["ctxmem"]["reason"]) == ("a", 3, "")
        assert [one.page_content for one in found[1:]] == [one.page_content for one in DOCUMENTS[1:]]
        assert all(one.metadata["ctxmem"]["reason"] for one in found[1:])

    def test_share_a_budget(self):
        """Tokens of all together."""
        made = CtxMemCompressor(compressor=COMPRESSOR, budget=100)
        found = made.compress_documents([Document(PROSE)] * 3, "Who was the cook?")
        assert sum(len(one.page_content.split()) for one in found) <= 100

    def test_async_and_none(self):
        """The seam's other half."""
        made = CtxMemCompressor(compressor=COMPRESSOR, budget=100)
        assert asyncio.run(made.acompress_documents([], "Who?")) == []
        assert len(asyncio.run(made.acompress_documents(DOCUMENTS, ""))) == 4

    @pytest.mark.parametrize("how", [{}, {"budget": 0}, {"ratio": 2.0}, {"budget": 5, "ratio": 0.5}])
    def test_wrong_budgets(self, how):
        """Refused when it is made."""
        with pytest.raises(ValueError, match=r"budget|ratio"):
            CtxMemCompressor(compressor=COMPRESSOR, **how)
