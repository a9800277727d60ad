"""LangChain's own context middleware with our summarizer and our edit."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ContextEditingMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from ctxmem.agents.langchain_edits import CtxMemContextEdit, CtxMemSummarizer
from ctxmem.errors import InvalidInput
from ctxmem.tokens.resolve import counter_for
from tests.unit.agents.test_langgraph import TURNS, Prober, at, look

PROSE = " ".join(
    f"The ship {i} of captain Name{i} came to the harbour in {1800 + i}, and then left." for i in range(40)
)
TALK: list[AnyMessage] = [
    SystemMessage("Be brief."),
    HumanMessage("My booking is under Zebedee Smith."),
    AIMessage("", tool_calls=[{"name": "look", "args": {"page": 3}, "id": "c1"}]),
    ToolMessage(PROSE, tool_call_id="c1"),
    AIMessage([{"type": "text", "text": PROSE}]),
    HumanMessage(
        [{"type": "text", "text": "And who was captain of ship 17?"}, {"type": "image_url", "image_url": "x"}]
    ),
]


def tokens(text: str) -> int:
    return counter_for("").texts([text])[0]


class TestSummarizer:
    @pytest.mark.parametrize("room", [30, 100, 400, 100_000])
    def test_is_never_longer_than_allowed_and_keeps_what_people_said(self, room: int) -> None:
        """And the same every time."""
        summary = CtxMemSummarizer(tokens=room).invoke(TALK)
        assert tokens(summary) <= room
        assert room < 100 or "And who was captain of ship 17?" in summary
        assert room < 100 or "user: My booking is under Zebedee Smith." in summary
        assert room < 400 or "\nassistant: " in summary
        assert room < 400 or "Name17" in summary
        assert room < 100_000 or summary.count("\n") == len(TALK) - 1
        assert CtxMemSummarizer(tokens=room).invoke(TALK) == summary

    async def test_writes_the_middlewares_summaries(self) -> None:
        """No model is called for them; sync and async."""
        model = FakeListChatModel(responses=[PROSE[:300]])
        middleware: Any = SummarizationMiddleware(
            model,
            trigger=("messages", 8),
            keep=("messages", 2),
            summarizer=CtxMemSummarizer(tokens=200),
            trim_tokens_to_summarize=None,
        )
        agent = create_agent(model, [], middleware=[middleware])
        said: list[Any] = [HumanMessage("My booking is under Zebedee Smith.")]
        said += [message for n in range(4) for message in (AIMessage(PROSE), HumanMessage(f"Go on, {n}."))]
        for done in (agent.invoke({"messages": said}), await agent.ainvoke({"messages": said})):
            summary = done["messages"][0].text
            assert "Zebedee Smith" in summary
            assert tokens(summary) < 300
            assert len(done["messages"]) == 4

    def test_of_nothing_is_empty(self) -> None:
        assert CtxMemSummarizer().invoke([]) == ""
        assert CtxMemSummarizer().invoke([HumanMessage([{"type": "image_url", "image_url": "x"}])]) == ""

    @pytest.mark.parametrize("room", [0, -1])
    def test_needs_room(self, room: int) -> None:
        with pytest.raises(InvalidInput):
            CtxMemSummarizer(tokens=room)


class TestEdit:
    def test_a_tool_agent_over_fifty_turns(self) -> None:
        """Pairs whole, old results short, newest whole, the state as without us."""
        model = Prober()
        edit = CtxMemContextEdit(trigger=3000, keep=2, ratio=0.2)
        agent = create_agent(model, [look], middleware=[ContextEditingMiddleware(edits=[edit])])
        done = agent.invoke({"messages": [HumanMessage("Find the fault.")]}, at("t"))
        assert len(model.seen) == TURNS + 1
        sent = [message for message in model.seen[-1] if isinstance(message, ToolMessage)]
        kept = [message for message in done["messages"] if isinstance(message, ToolMessage)]
        assert all(m.content == look.invoke({"page": int(m.tool_call_id[1:])}) for m in kept)
        assert [m.tool_call_id for m in sent] == [m.tool_call_id for m in kept]
        assert [m.content for m in sent[-2:]] == [m.content for m in kept[-2:]]
        assert all(len(short.content) < len(whole.content) / 2 for short, whole in zip(sent[:-2], kept, strict=False))
        assert all(m.response_metadata["context_editing"] for m in sent[:-2])

    def test_below_the_trigger_nothing_changes(self) -> None:
        messages = list(TALK)
        CtxMemContextEdit(keep=0).apply(messages, count_tokens=count_tokens_approximately)
        assert messages == TALK

    def test_only_texts_of_other_tools_change(self) -> None:
        """Images, excluded tools and results that were edited before stay; an orphan is no reason to fail."""
        image = {"type": "image_url", "image_url": "x"}
        cleared = {"context_editing": {"cleared": True}}
        messages: list[AnyMessage] = [
            ToolMessage([PROSE, {"type": "text", "text": PROSE}, image], tool_call_id="orphan"),
            AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "c1"}]),
            ToolMessage(PROSE, tool_call_id="c1"),
            ToolMessage(PROSE, tool_call_id="c2", response_metadata=cleared),
            HumanMessage("Who was captain of ship 17?"),
        ]
        before = [message.model_copy(deep=True) for message in messages]
        edit = CtxMemContextEdit(trigger=10, keep=0, exclude_tools=["look"])
        given = list(messages)
        edit.apply(messages, count_tokens=count_tokens_approximately)
        assert given == before
        assert messages[1:] == before[1:]
        text, block, same = messages[0].content
        assert text == block["text"]
        assert len(text) < len(PROSE) / 2
        assert "Name17" in text
        assert same == image

    def test_what_was_sent_is_sent_again(self) -> None:
        """A later question does not rewrite what stands before it, so that a prompt cache still hits."""
        edit, sent = CtxMemContextEdit(trigger=10, keep=0), []
        for question in ("Who was captain of ship 17?", "Who was captain of ship 4?"):
            messages: list[AnyMessage] = [ToolMessage(PROSE, tool_call_id="c1"), HumanMessage(question)]
            edit.apply(messages, count_tokens=count_tokens_approximately)
            sent.append(messages[0].content)
        assert sent[0] == sent[1] != PROSE

    def test_a_share_is_a_share(self) -> None:
        with pytest.raises(InvalidInput):
            CtxMemContextEdit(ratio=1.5)
