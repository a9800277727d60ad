"""Wrapped clients of the official SDKs against a real server: what is sent fits, what is said is logged."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ctxmem import ContextManager, wrap
from ctxmem.errors import BudgetError
from tests.service.upstream import Cut, Pause, Upstream, completion, streamed, torn, whole, words
from tests.service.wires import ANSWER, FUNCTION, HELLO, ITEMS, REASONING, response

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}


def logged(manager: ContextManager, session: str) -> list[tuple[str, bool]]:
    return [(event.role, event.complete) for event in manager.session(session).events()]


def conversation(turns: int) -> list[dict[str, Any]]:
    """A user's request and a run of tool calls with long results, two calls at once every third time."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Find the fault in the log."}]
    for i in range(turns):
        names = [f"c{i}", f"d{i}"] if i % 3 == 0 else [f"c{i}"]
        function = {"name": "search", "arguments": json.dumps({"page": i})}
        calls = [{"id": name, "type": "function", "function": function} for name in names]
        history.append({"role": "assistant", "content": None, "tool_calls": calls})
        text = " ".join(f"Line {i} of the report says that part {k} was seen and seemed fine." for k in range(20))
        history += [{"role": "tool", "tool_call_id": name, "content": text} for name in names]
    return history


class TestOpenAI:
    def test_objects_are_those_of_the_bare_client(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """Whole and streamed, chat and responses."""
        managed = wrap(chat, manager)
        asked: dict[str, Any] = {"model": "m", "messages": HELLO}
        assert managed.chat.completions.create(**asked) == chat.chat.completions.create(**asked)
        streams = [list(client.chat.completions.create(**asked, stream=True)) for client in (managed, chat)]
        assert streams[0] == streams[1]
        upstream.answer = lambda request: whole(response(REASONING, FUNCTION))
        assert managed.responses.create(model="m", input="Hi") == chat.responses.create(model="m", input="Hi")
        upstream.answer = lambda request: streamed(ITEMS)
        events = [list(c.responses.create(model="m", input="Hi", stream=True)) for c in (managed, chat)]
        assert events[0] == events[1]
        bodies = [received.body for received in upstream.received]
        assert bodies[::2] == bodies[1::2]

    def test_a_long_tool_loop_stays_in_budget_and_whole(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """Fifty turns: a strict provider takes every request, the caller's list is its own, receipts are complete."""
        managed = wrap(chat, manager, session="loop", budget=2000)
        history = conversation(50)
        ends = [i + 1 for i, m in enumerate(history) if i + 1 == len(history) or history[i + 1]["role"] == "assistant"]
        for end in ends:
            given = history[:end]
            before = copy.deepcopy(given)
            raw = managed.chat.completions.with_raw_response.create(model="m", messages=given, tools=[TOOL])
            assert given == before
            receipt = manager.receipt(raw.headers["x-ctxmem-request-id"])
            assert receipt.tokens <= 2000
            assert len({item.event_id for item in receipt.items}) == len(receipt.items) >= end
        assert len(ends) == 51
        assert not any(torn(received.json["messages"]) for received in upstream.received)
        assert len(upstream.last.json["messages"]) < len(history)

    @pytest.mark.parametrize("stream", [False, True])
    def test_both_ways_are_logged(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager, stream: bool
    ) -> None:
        """A client may send only what is new: the log has the rest."""
        managed = wrap(chat, manager, session="delta", user="alice")
        for text in ("One?", "Two?"):
            answer = managed.chat.completions.create(
                model="m", messages=[{"role": "user", "content": text}], stream=stream
            )
            if stream:
                assert "".join(piece.choices[0].delta.content or "" for piece in answer) == "Hello there."
        assert logged(manager, "delta") == [("user", True), ("assistant", True)] * 2
        assert manager.session("delta").head.user_id == "alice"
        assert [m["content"] for m in upstream.last.json["messages"]] == ["One?", "Hello there.", "Two?"]

    def test_the_helpers_of_the_sdk_work(self, chat: openai.OpenAI, manager: ContextManager) -> None:
        """Streaming with accumulation, and a response that is streamed raw."""
        managed = wrap(chat, manager, session="helpers")
        with managed.chat.completions.stream(model="m", messages=HELLO) as stream:
            stream.until_done()
            assert stream.get_final_completion().choices[0].message.content == "Hello there."
        with managed.chat.completions.with_streaming_response.create(model="m", messages=HELLO) as raw:
            assert json.loads(raw.read())["choices"][0]["message"]["content"] == "Hello there."
        assert all(complete for _, complete in logged(manager, "helpers"))

    def test_a_stream_that_is_left_is_logged_as_cut(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """What came is kept."""
        managed = wrap(chat, manager, session="left")
        stream = words("Hello", " there.")
        upstream.answer = lambda request: streamed(stream[:250], Pause(0.2), stream[250:])
        with managed.chat.completions.create(model="m", messages=HELLO, stream=True) as pieces:
            next(iter(pieces))
        assert logged(manager, "left") == [("user", True), ("assistant", False)]

    def test_a_broken_stream_is_seen_as_broken(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """The caller gets the exception of the bare client."""
        managed = wrap(chat, manager, session="broken")
        upstream.answer = lambda request: streamed(words("Hello", " there.")[:250], Cut())
        raised = []
        for client in (managed, chat):
            with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection") as broken:
                list(client.chat.completions.create(model="m", messages=HELLO, stream=True))
            raised.append((broken.type, str(broken.value)))
        assert raised[0] == raised[1]
        assert logged(manager, "broken")[-1] == ("assistant", False)

    def test_a_retry_of_the_sdk_is_one_turn(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """The message is logged once."""
        replies = [whole({"error": {"message": "busy"}}, 503, retry_after_ms="1"), whole(completion())]
        upstream.answer = lambda request: replies.pop(0)
        wrap(chat.copy(max_retries=2), manager, session="retry").chat.completions.create(model="m", messages=HELLO)
        assert logged(manager, "retry") == [("user", True), ("assistant", True)]

    def test_what_is_no_turn_passes(self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager) -> None:
        """Models, embeddings, and responses whose history the provider holds."""
        managed = wrap(chat, manager, session="other", budget=100)
        upstream.answer = lambda request: whole({"object": "list", "data": []})
        assert managed.models.list().data == chat.models.list().data == []
        upstream.answer = lambda request: whole(response(ANSWER))
        managed.responses.create(model="m", input="x " * 500, previous_response_id="resp_0")
        assert len(upstream.last.json["input"]) == 1000
        assert manager.engine.store.session("default", "other") is None

    def test_what_cannot_fit_raises_and_is_logged(
        self, chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
    ) -> None:
        """Nothing is sent; the words are not lost."""
        managed = wrap(chat, manager, session="big", budget=60)
        with pytest.raises(BudgetError):
            managed.chat.completions.create(model="m", messages=[{"role": "user", "content": "word " * 900}])
        assert not upstream.received
        assert logged(manager, "big") == [("user", True)]

    def test_threads_share_a_client(self, chat: openai.OpenAI, manager: ContextManager) -> None:
        """Sixteen conversations at once: none loses a message, none sees another's."""
        managed = wrap(chat, manager)

        def talk(number: int) -> str:
            asked = [{"role": "user", "content": f"I am number {number}."}]
            raw = managed.chat.completions.with_raw_response.create(model="m", messages=asked)
            return str(raw.headers["x-ctxmem-session"])

        with ThreadPoolExecutor(8) as pool:
            sessions = list(pool.map(talk, range(16)))
        assert len(set(sessions)) == 16
        assert all(logged(manager, session) == [("user", True), ("assistant", True)] for session in sessions)
