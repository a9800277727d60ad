"""The middleware in real LangChain agents: the model sees what fits, the graph keeps everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import Field

from ctxmem import ContextManager
from ctxmem.agents.langchain_messages import to_chat
from ctxmem.agents.langgraph import CtxMemMiddleware
from ctxmem.errors import BudgetError
from tests.service.upstream import torn

TURNS = 50


class Prober(BaseChatModel):
    """Calls a tool, two at once every third time, until it has looked often enough. Strict as a provider is."""

    turns: int = TURNS
    seen: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "prober"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        wrong = torn([as_sent(message) for message in messages])
        if wrong:
            raise ValueError(wrong)
        self.seen.append(messages)
        turn = len(self.seen)
        names = [f"a{turn}", f"b{turn}"] if turn % 3 == 0 else [f"a{turn}"]
        calls = [{"name": "look", "args": {"page": turn}, "id": name} for name in names]
        said = AIMessage(content=f"Page {turn}.", tool_calls=calls) if turn <= self.turns else AIMessage("Done.")
        return ChatResult(generations=[ChatGeneration(message=said)])


@tool
def look(page: int) -> str:
    """Read a page of the report."""
    return " ".join(f"Line {k} of page {page} says that the part was seen and seemed fine." for k in range(20))


def as_sent(message: BaseMessage) -> dict[str, Any]:
    """As a provider gets it."""
    return dict(json.loads(to_chat(message).raw or b"{}"))


@pytest.fixture
def manager() -> Iterator[ContextManager]:
    made = ContextManager("sqlite://")
    yield made
    made.close()


def agent(manager: ContextManager, model: Prober, **options: Any) -> Any:
    middleware = CtxMemMiddleware(manager, **options)
    return create_agent(model, [look], system_prompt="Be brief.", middleware=[middleware], checkpointer=InMemorySaver())


def at(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, "recursion_limit": 4 * TURNS}


ASKED = {"messages": [{"role": "user", "content": "Find the fault in the report."}]}


def test_a_tool_agent_over_fifty_turns(manager: ContextManager) -> None:
    """No broken pair, the state whole, each receipt complete, no request over its budget."""
    model = Prober()
    graph = agent(manager, model, budget=2500)
    done = graph.invoke(ASKED, at("t1"))
    assert len(model.seen) == TURNS + 1
    kept = done["messages"]
    answered = [m for m in kept if isinstance(m, ToolMessage)]
    calls = [call for m in kept if isinstance(m, AIMessage) for call in m.tool_calls]
    assert len(answered) == len(calls) == TURNS + TURNS // 3
    assert all(m.content == look.invoke({"page": int(m.tool_call_id[1:])}) for m in answered)
    assert "ctxmem_receipt" not in done
    assert len(model.seen[-1]) < len(kept)
    requests = manager.engine.store.requests("default", session_id="t1", limit=1000)
    assert len(requests) == TURNS + 1
    assert all(request.tokens <= 2500 and request.status == "answered" for request in requests)
    receipt = manager.receipt(requests[-1].id)
    assert len({item.event_id for item in receipt.items}) == len(receipt.items) == len(kept)
    assert graph.get_state(at("t1")).values["ctxmem_receipt"]["id"] == requests[-1].id


async def test_async_goes_on_where_sync_was(manager: ContextManager) -> None:
    """One thread, both ways of calling, and one branch of one session."""
    model = Prober(turns=1)
    graph = agent(manager, model, policy="none")
    graph.invoke(ASKED, at("t2"))
    done = await graph.ainvoke({"messages": [{"role": "user", "content": "And now?"}]}, at("t2"))
    assert [m.content for m in model.seen[-1][1:]] == [m.content for m in done["messages"][:-1]]
    head = manager.session("t2").head
    assert (head.branches, head.events) == (1, len(done["messages"]) + 1)


def test_streaming_gives_the_same_messages(manager: ContextManager) -> None:
    """Updates of the graph come one by one, as without the middleware."""
    steps = list(agent(manager, Prober(turns=2)).stream(ASKED, at("t3"), stream_mode="updates"))
    said = [name for step in steps for name in step if name in ("model", "tools")]
    assert said == ["model", "tools", "model", "tools", "model"]


def test_a_failing_model_leaves_a_failed_request(manager: ContextManager) -> None:
    """Its exception reaches the caller; the question is in the log."""

    class Broken(Prober):
        def _generate(self, *args: Any, **options: Any) -> ChatResult:
            raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        agent(manager, Broken()).invoke(ASKED, at("t4"))
    [request] = manager.engine.store.requests("default", session_id="t4")
    assert (request.status, request.reply_id) == ("failed", None)


def test_what_cannot_fit_is_an_error(manager: ContextManager) -> None:
    """Before the model is called."""
    model = Prober()
    with pytest.raises(BudgetError):
        agent(manager, model, budget=40).invoke(ASKED, at("t5"))
    assert not model.seen
