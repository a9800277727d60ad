"""What agents really send, through every plugin that shapes a call: huge results, foreign kinds, orphans, twins."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from agents import Agent
from agents.run import CallModelData, ModelInputData
from langchain.agents.middleware import ModelRequest as ChainRequest
from langchain.agents.middleware import ModelResponse as ChainResponse
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, ChatMessage, FunctionMessage, HumanMessage, RemoveMessage, ToolMessage
from pydantic_ai.messages import (
    BinaryContent,
    CachePoint,
    FilePart,
    ImageUrl,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
from pydantic_ai.models.function import FunctionModel

from ctxmem import ContextManager
from ctxmem.agents.langchain_context import CtxMemContext
from ctxmem.agents.langgraph import CtxMemMiddleware
from ctxmem.agents.openai_agents import CtxMemInputFilter
from ctxmem.agents.pydantic_ai import CtxMemCapability
from ctxmem.errors import BudgetError, InvalidInput

HUGE = "".join(f"line {n}: the pump of hall {n % 7} runs at {n * 13 % 997} turns\n" for n in range(4000))
BUDGET = 1500
Said = list[Any]


@dataclass(frozen=True)
class Face:
    """A plugin: how it is called, and how its framework says things."""

    send: Callable[[ContextManager, Any, int | None], Said]
    asks: Callable[[str], Any]
    calls: Callable[[str], Any]
    results: Callable[[str, str], Any]
    foreign: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()


def _step(manager: ContextManager, said: Any, budget: int | None) -> Said:
    return CtxMemContext(manager=manager, budget=budget, session="s").invoke(said)


def _middleware(manager: ContextManager, said: Any, budget: int | None) -> Said:
    seen: Said = []

    def model(request: ChainRequest[Any]) -> ChainResponse[Any]:
        seen.extend(request.messages)
        return ChainResponse(result=[AIMessage("Seen.")])

    request = ChainRequest(model=FakeListChatModel(responses=["Seen."]), messages=said)
    CtxMemMiddleware(manager, budget=budget, session="s").wrap_model_call(request, model)
    return seen


def _filter(manager: ContextManager, said: Any, budget: int | None) -> Said:
    data = CallModelData(model_data=ModelInputData(input=said, instructions=None), agent=Agent("a"), context=None)
    return asyncio.run(CtxMemInputFilter(manager, budget=budget, session="s")(data)).input


def _capability(manager: ContextManager, said: Any, budget: int | None) -> Said:
    request: Any = ModelRequestContext(
        model=FunctionModel(lambda messages, info: ModelResponse(parts=[TextPart("Seen.")])),
        messages=said,
        model_settings=None,
        model_request_parameters=ModelRequestParameters(),
    )
    shaped = CtxMemCapability(manager, budget=budget, session="s").prepare_model_request(None, request)
    return asyncio.run(shaped).messages


def _retried(text: str) -> ModelRequest:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is on its way out there, histories hold it all the same
        return ModelRequest(parts=[RetryPromptPart(text, tool_name="look", tool_call_id="c1")])


CHAIN: dict[str, Any] = {
    "asks": HumanMessage,
    "calls": lambda name: AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": name}]),
    "results": lambda name, text: ToolMessage(text, tool_call_id=name),
    "foreign": (
        ChatMessage("Terse, please.", role="developer"),
        FunctionMessage("42", name="sum"),
        HumanMessage([{"type": "hologram", "light": [1.5, None, "💡"]}, "and words"]),
        AIMessage([{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}, {"type": "text", "text": "Yes."}]),
    ),
    "refused": (RemoveMessage("m1"), HumanMessage([{"type": "blob", "bytes": b"\x00"}])),
}
ITEMS: dict[str, Any] = {
    "asks": lambda text: {"role": "user", "content": text},
    "calls": lambda name: {"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"},
    "results": lambda name, text: {"type": "function_call_output", "call_id": name, "output": text},
    "foreign": (
        {"type": "hologram", "light": [1.5, None, "💡"]},
        {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "compaction", "encrypted_content": "gAAAB"},
        {"type": "item_reference", "id": "msg_1"},
    ),
    "refused": (object(), "words", {"type": "blob", "bytes": b"\x00"}),
}
PARTS: dict[str, Any] = {
    "asks": lambda text: ModelRequest(parts=[UserPromptPart(text)]),
    "calls": lambda name: ModelResponse(parts=[ToolCallPart("look", {}, tool_call_id=name)]),
    "results": lambda name, text: ModelRequest(parts=[ToolReturnPart("look", text, tool_call_id=name)]),
    "foreign": (
        ModelResponse(parts=[ThinkingPart("Hm.", signature="c2ln"), TextPart("Yes.")]),
        ModelRequest(parts=[UserPromptPart([ImageUrl("https://example.org/a.png"), CachePoint(), "and words"])]),
        ModelRequest(parts=[UserPromptPart([BinaryContent(b"\x89PNG", media_type="image/png")])]),
        ModelResponse(parts=[FilePart(BinaryContent(b"\x00", media_type="audio/wav"))]),
    ),
}
FACES = {
    "chain": Face(_step, **CHAIN),
    "middleware": Face(_middleware, **CHAIN),
    "filter": Face(_filter, **ITEMS),
    "capability": Face(_capability, **PARTS),
}
every_face = pytest.mark.parametrize("face", FACES.values(), ids=FACES)


def pair(face: Face, result: Any) -> Said:
    return [face.asks("Look."), face.calls("c1"), result]


class TestHuge:
    @every_face
    def test_a_result_larger_than_the_budget_loses_its_middle(self, face: Face, manager: ContextManager) -> None:
        """The call keeps its result, both ends of it are there, and all of it can be had back."""
        said = pair(face, face.results("c1", HUGE))
        sent = face.send(manager, said, BUDGET)
        assert sent[:2] == said[:2]
        shown = repr(sent[2])
        assert "c1" in shown and "line 0:" in shown and "line 3999:" in shown and "line 2000:" not in shown
        request = manager.engine.store.requests("default", session_id="s")[0]
        assert request.tokens <= BUDGET
        cut = next(item for item in manager.receipt(request.id).items if item.decision == "pruned")
        restored: Any = manager.restore(cut.item_id)
        assert restored.get("content", restored.get("output")) == HUGE

    @every_face
    def test_what_the_user_says_is_not_cut(self, face: Face, manager: ContextManager) -> None:
        with pytest.raises(BudgetError):
            face.send(manager, [face.asks(HUGE)], BUDGET)

    def test_a_demand_to_try_again_is_the_calls_result(self, manager: ContextManager) -> None:
        """PydanticAI's RetryPromptPart: the call is answered, and a huge one is cut as a result is."""
        face = FACES["capability"]
        said = pair(face, _retried("No such page."))
        assert face.send(manager, said, BUDGET) == said
        roles = [event.role for event in manager.session("s").events()]
        assert roles == ["user", "assistant", "tool"]
        sent = face.send(manager, [*said, *pair(face, _retried(HUGE))], BUDGET)
        assert "line 0:" in repr(sent[-1]) and "line 2000:" not in repr(sent[-1])


class TestForeign:
    @every_face
    def test_a_kind_we_do_not_know_goes_as_it_came(self, face: Face, manager: ContextManager) -> None:
        """The very objects, in their places."""
        said = [face.asks("Look."), *face.foreign, face.asks("And now?")]
        sent = face.send(manager, said, None)
        assert len(sent) == len(said)
        assert all(one is other or one == other for one, other in zip(sent, said, strict=True))

    @pytest.mark.parametrize(
        ("face", "wrong"),
        [pytest.param(f, w, id=f"{n}-{i}") for n, f in FACES.items() for i, w in enumerate(f.refused)],
    )
    def test_what_has_no_place_or_no_json_is_refused(self, face: Face, wrong: Any, manager: ContextManager) -> None:
        """Before anything is logged."""
        with pytest.raises(InvalidInput):
            face.send(manager, [face.asks("Look."), wrong], None)
        assert manager.engine.store.session("default", "s") is None

    @every_face
    def test_results_without_a_call_and_calls_without_a_result(self, face: Face, manager: ContextManager) -> None:
        """They are the caller's: with room they go as they came, the provider says what it thinks of them."""
        said = [face.results("nobody", "late"), face.asks("Look."), face.calls("c9"), face.asks("Go on.")]
        assert face.send(manager, said, None) == said

    @every_face
    def test_twins_are_two(self, face: Face, manager: ContextManager) -> None:
        """Equal messages are sent as often as they were said, in the same places."""
        said = [face.asks("Again."), face.asks("Again."), *pair(face, face.results("c1", "ok")), face.asks("Again.")]
        sent = face.send(manager, said, None)
        assert len(sent) == len(said)
        assert all(one is other for one, other in zip(sent, said, strict=True))
        assert len([event for event in manager.session("s").events() if event.origin == "client"]) == len(said)


class TestNoConversation:
    @pytest.mark.parametrize("said", [None, 7, [], [None], [object()], b"x", {"role": "user"}])
    def test_a_chain_step_names_what_it_got(self, said: Any, manager: ContextManager) -> None:
        with pytest.raises(InvalidInput):
            _step(manager, said, None)

    def test_a_chain_step_takes_what_a_chat_model_takes(self, manager: ContextManager) -> None:
        """A text, pairs, dicts and messages."""
        assert _step(manager, "Look.", None) == [HumanMessage("Look.")]
        likes = ["Look.", ("ai", "Where?"), {"role": "user", "content": "There."}]
        assert [m.content for m in _step(manager, likes, None)] == ["Look.", "Where?", "There."]
