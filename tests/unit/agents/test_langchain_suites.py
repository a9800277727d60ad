"""LangChain's own suites over ctxmem's classes, with no test overridden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    SyncCacheTestSuite,
    ToolsIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.indexer import AsyncDocumentIndexTestSuite, DocumentIndexerTestSuite
from langchain_tests.unit_tests import EmbeddingsUnitTests, ToolsUnitTests

from ctxmem import ContextManager
from ctxmem.agents.langchain_context import memory_tools
from ctxmem.agents.langchain_documents import CtxMemDocumentIndex, CtxMemRetriever
from ctxmem.agents.langchain_kept import Adapted
from ctxmem.agents.langchain_models import CtxMemEmbeddings
from ctxmem.agents.langchain_values import CtxMemByteStore, CtxMemCache
from ctxmem.agents.langchain_vectors import CtxMemVectorStore
from ctxmem.retrieval.library import Library, Source
from tests.databases import database

TEXTS = (
    "The harbour tram leaves at nine.",
    "Rye bread is sold behind the mill.",
    "Ada mends the harbour clock.",
    "The night ferry carries no bread.",
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ContextManager]:
    made = ContextManager(database(tmp_path / "kept.db"))
    yield made
    made.close()


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, manager: ContextManager) -> CtxMemVectorStore:
        return CtxMemVectorStore(self.get_embeddings(), manager=manager)


class TestRetriever(RetrieversIntegrationTests):
    """Built as users build it: over a library with words and vectors."""

    @pytest.fixture(autouse=True)
    def library(self, manager: ContextManager) -> None:
        embedder = Adapted(DeterministicFakeEmbedding(size=6), name="fake")
        type(self)._library = Library(manager.engine.store.documents, embedder)
        sources = [Source(text, id=str(number)) for number, text in enumerate(TEXTS)]
        type(self)._library.ingest("default", "langchain", sources)

    _library: Library

    @property
    def retriever_constructor(self) -> type[CtxMemRetriever]:
        return CtxMemRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"library": self._library}

    @property
    def retriever_query_example(self) -> str:
        return "when does the harbour tram leave?"


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self, manager: ContextManager) -> CtxMemDocumentIndex:
        return CtxMemDocumentIndex(library=Library(manager.engine.store.documents, None), mode="words")


class TestAsyncDocumentIndex(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    def index(self, manager: ContextManager) -> CtxMemDocumentIndex:
        return CtxMemDocumentIndex(library=Library(manager.engine.store.documents, None), mode="words")


class _Encoder:
    """The packaged encoder, loaded once for all of a suite."""

    @property
    def embeddings_class(self) -> type[CtxMemEmbeddings]:
        return CtxMemEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "minilm"}


class TestEmbeddings(_Encoder, EmbeddingsUnitTests):
    pass


class TestEmbeddingsInUse(_Encoder, EmbeddingsIntegrationTests):
    pass


class _Bytes:
    @pytest.fixture
    def kv_store(self, manager: ContextManager) -> CtxMemByteStore:
        return CtxMemByteStore(manager=manager)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"\0two\xff", b""


class TestByteStore(_Bytes, BaseStoreSyncTests[bytes]):
    pass


class TestAsyncByteStore(_Bytes, BaseStoreAsyncTests[bytes]):
    pass


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, manager: ContextManager) -> CtxMemCache:
        return CtxMemCache(manager=manager)


class TestAsyncCache(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, manager: ContextManager) -> CtxMemCache:
        return CtxMemCache(manager=manager)


class _Search:
    @pytest.fixture(autouse=True)
    def tools(self, manager: ContextManager) -> None:
        type(self)._tool = memory_tools(manager, "ada")[1]

    _tool: BaseTool

    @property
    def tool_constructor(self) -> BaseTool:
        return self._tool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "where does Ada live?"}


class TestTool(_Search, ToolsUnitTests):
    pass


class TestToolInUse(_Search, ToolsIntegrationTests):
    pass
