"""Tool results that are too long, in real agents: shortened as they come, restored by the model's own call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from ctxmem import ContextManager
from ctxmem.agents.langchain_results import CtxMemToolResults
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import InvalidInput
from ctxmem.manager.reversible import Reversible
from ctxmem.testing import WordCounter
from ctxmem.tokens.resolve import counter_for

PROSE = " ".join(f"On day {n} the tram to the mill left at nine and came back at noon." for n in range(400))
CODE = "\n".join(f"value_{n} = compute({n})" for n in range(900))
ROWS = json.dumps([{"row": n, "note": f"the part {n} was seen"} for n in range(400)])
PAGES = {"prose": PROSE, "code": CODE, "rows": ROWS, "short": "All is well."}


@tool
def read(page: str) -> str:
    """Read a page."""
    return PAGES[page]


class Scripted(GenericFakeChatModel):
    """Says what it is given, tools or not."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        assert "ctx_restore" in {one.name for one in tools}
        return self


def agent(manager: ContextManager, *calls: dict[str, Any], tokens: int = 500) -> Any:
    said = [AIMessage("", tool_calls=[call]) for call in calls]
    model = Scripted(messages=iter([*said, AIMessage("Done.")]))
    return create_agent(model, [read], middleware=[CtxMemToolResults(manager, tokens=tokens)])


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": f"c{number}", "type": "tool_call"}


def results(done: dict[str, Any]) -> list[str]:
    return [str(message.content) for message in done["messages"] if isinstance(message, ToolMessage)]


def test_long_results_are_short_in_the_state(manager: ContextManager) -> None:
    """Prose, code and JSON within their tokens, each with its mark; a short one as it is."""
    graph = agent(manager, *(call(n, "read", page=page) for n, page in enumerate(PAGES)))
    prose, code, rows, short = results(graph.invoke({"messages": [("user", "What happened on day 7?")]}))
    count = counter_for("")
    assert all(count.texts([one])[0] <= 500 and "ctx:" in one for one in (prose, code, rows))
    assert code.startswith("value_0 = ") and "compute(899)" in code
    assert json.loads(rows)[0] == {"row": 0, "note": "the part 0 was seen"}
    assert short == PAGES["short"]


async def test_the_model_can_have_the_original(manager: ContextManager) -> None:
    """By the handle in the mark, async, and what comes back is not shortened again."""
    first = await agent(manager, call(1, "read", page="prose")).ainvoke({"messages": [("user", "Read.")]})
    handle = results(first)[0].rpartition("ctx:")[2].rstrip("]")
    again = await agent(manager, call(2, "ctx_restore", handle=f"ctx:{handle}")).ainvoke(
        {"messages": [("user", "All.")]}
    )
    assert results(again) == [PROSE]
    wrong = await agent(manager, call(3, "ctx_restore", handle="ctx:12")).ainvoke({"messages": [("user", "All.")]})
    assert results(wrong)[0].startswith("error: ")


async def test_many_agents_at_once(manager: ContextManager) -> None:
    graphs = [agent(manager, call(n, "read", page="prose")) for n in range(8)]
    done = await asyncio.gather(*(graph.ainvoke({"messages": [("user", "Read.")]}) for graph in graphs))
    assert len({results(one)[0] for one in done}) == 1


def test_too_little_room_is_refused(manager: ContextManager) -> None:
    with pytest.raises(InvalidInput):
        CtxMemToolResults(manager, tokens=63)


@given(st.text(max_size=900), st.integers(64, 90))
def test_never_more_than_allowed(text: str, tokens: int) -> None:
    """Whatever the text; the original is kept whenever something is left out."""
    kept: list[bytes] = []

    def keep(content: bytes) -> str:
        kept.append(content)
        return ""

    compressor = Compressor(WordCounter(), Lexical())
    done = Reversible(keep, lambda _: b"").within(compressor, text, tokens)
    assert compressor.counter.texts([done])[0] <= tokens
    assert (done == text) == (not kept)
