"""ctxmem in chains: what a step sends, what tools may touch, pieces of documents, counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from pydantic import ValidationError

from ctxmem import ContextManager
from ctxmem.agents.langchain_context import CtxMemContext, memory_tools
from ctxmem.agents.langchain_documents import CtxMemDocumentIndex, CtxMemRetriever, CtxMemSplitter
from ctxmem.agents.langchain_models import CtxMemCrossEncoder, token_counter
from ctxmem.errors import BudgetError, InvalidInput, NotFound
from ctxmem.retrieval.library import Library, Source

LONG = "the harbour tram leaves at nine and comes back past the old mill " * 4


def conversation(turns: int) -> list[BaseMessage]:
    said: list[BaseMessage] = [SystemMessage(content="Be brief.")]
    for turn in range(turns):
        said += [HumanMessage(content=f"{turn}: {LONG}"), AIMessage(content=f"Noted {turn}.")]
    return [*said, HumanMessage(content="When does the tram leave?")]


class TestContext:
    def test_a_step_of_a_chain(self, manager: ContextManager) -> None:
        """The model gets what fits; what is untouched are the objects that came in, and those stay as they were."""
        said = conversation(40)
        before = [message.model_copy(deep=True) for message in said]
        step = CtxMemContext(manager=manager, budget=600, session="s", policy="none")
        sent = step.invoke(said)
        assert len(sent) < len(said)
        assert {id(message) for message in sent} <= {id(message) for message in said}
        assert (sent[0], sent[-1]) == (said[0], said[-1])
        assert said == before
        chain = (
            ChatPromptTemplate.from_messages([MessagesPlaceholder("said")])
            | step
            | FakeListChatModel(responses=["At nine."])
        )
        assert chain.invoke({"said": said}).content == "At nine."

    async def test_many_at_once(self, manager: ContextManager) -> None:
        """Each session by its name in the config."""
        step = CtxMemContext(manager=manager, budget=600)
        said = conversation(5)
        config: list[Any] = [{"configurable": {"session_id": f"many{n}"}} for n in range(6)]
        sent = await asyncio.gather(*(step.ainvoke(said, one) for one in config))
        assert all(one == sent[0] for one in sent)
        assert all(manager.engine.store.session(manager.tenant, f"many{n}") for n in range(6))

    def test_bad_input(self, manager: ContextManager) -> None:
        with pytest.raises(ValidationError):
            CtxMemContext(manager="sqlite://")
        with pytest.raises(BudgetError):
            CtxMemContext(manager=manager, budget=20, session="small").invoke([HumanMessage(content=LONG * 9)])
        orphan = [HumanMessage(content="a"), ToolMessage(content="b", tool_call_id="nobody")]
        assert CtxMemContext(manager=manager, session="orphan").invoke(orphan)[0] is orphan[0]


class TestTools:
    def test_one_users_memories(self, manager: ContextManager) -> None:
        """Saved, found, put right and deleted by an agent; another user's cannot be reached by any argument."""
        ours = {tool.name: tool for tool in memory_tools(manager, "ada")}
        theirs = {tool.name: tool for tool in memory_tools(manager, "bob")}
        kept = ours["add_memory"].invoke({"text": "Ada lives in Porto."})["results"][0]
        assert ours["search_memory"].invoke({"query": "where does Ada live?"})["results"][0]["id"] == kept["id"]
        assert theirs["search_memory"].invoke({"query": "where does Ada live?"})["results"] == []
        with pytest.raises(NotFound):
            theirs["delete_memory"].invoke({"memory_id": kept["id"]})
        ours["update_memory"].invoke({"memory_id": kept["id"], "text": "Ada lives in Faro."})
        assert "Faro" in ours["list_memories"].invoke({})["results"][-1]["memory"]
        assert not any("user" in tool.args for tool in ours.values())

    def test_nobodys_memories_are_refused(self, manager: ContextManager) -> None:
        with pytest.raises(InvalidInput):
            memory_tools(manager, "")


class TestDocuments:
    def library(self, manager: ContextManager) -> Library:
        made = Library(manager.engine.store.documents, None)
        made.ingest(
            "default", "langchain", [Source("# Trams\n\nThe tram leaves at nine.", name="a.md", metadata={"n": 1})]
        )
        return made

    def test_pieces_say_where_they_stand(self, manager: ContextManager) -> None:
        retriever = CtxMemRetriever(library=self.library(manager), mode="words")
        piece = retriever.invoke("when does the tram leave?")[0]
        told = piece.metadata["ctxmem"]
        assert piece.page_content == "# Trams\n\nThe tram leaves at nine."[told["start"] : told["end"]]
        assert (piece.metadata["n"], told["document_id"]) == (1, "a.md")
        assert retriever.invoke("when does the tram leave?", k=0) == []

    def test_filters(self, manager: ContextManager) -> None:
        library = self.library(manager)
        asked = "when does the tram leave?"
        assert CtxMemRetriever(library=library, mode="words", filter={"n": 2}).invoke(asked) == []
        assert len(CtxMemRetriever(library=library, mode="words", filter={"n": 1}).invoke(asked)) == 1
        for wrong in ({"library": manager}, {"library": library, "filter": "n = 1"}):
            with pytest.raises((ValidationError, InvalidInput)):
                CtxMemRetriever(**wrong)  # type: ignore[arg-type]

    def test_an_index_needs_ids_to_delete(self, manager: ContextManager) -> None:
        with pytest.raises(InvalidInput):
            CtxMemDocumentIndex(library=self.library(manager)).delete()

    def test_a_splitter_keeps_metadata_and_offsets(self) -> None:
        text = "\n\n".join(f"## Part {n}\n\n{LONG}" for n in range(6))
        given = Document(page_content=text, metadata={"source": "a.md"})
        pieces = CtxMemSplitter("markdown").transform_documents([given])
        assert len(pieces) > 1
        for piece in pieces:
            told = piece.metadata["ctxmem"]
            assert text[told["start"] : told["end"]] == piece.page_content
            assert piece.metadata["source"] == "a.md"
        assert given.metadata == {"source": "a.md"}


class TestModels:
    def test_trimming_by_exact_counts(self) -> None:
        count = token_counter("some-model")
        said = conversation(10)
        trimmed = trim_messages(said, max_tokens=200, token_counter=count, strategy="last", include_system=True)
        assert 0 < count(trimmed) <= 200 < count(said)
        assert count(said[0]) == count(said[:1])

    @pytest.mark.model
    def test_pairs_of_several_queries(self) -> None:
        """Scores stand where their pairs stood, and rank as the reranker alone does."""
        encoder = CtxMemCrossEncoder()
        pairs = [("when is the tram?", "It leaves at nine."), ("who mends clocks?", "Ada mends the clock."),
                 ("when is the tram?", "Rye bread is sold here.")]  # fmt: skip
        scores = encoder.score(pairs)
        assert scores[0] > scores[2]
        assert scores[1] == pytest.approx(encoder.score([pairs[1]])[0], abs=1e-5)
        assert encoder.score([]) == []
