"""Wrapped clients of the official SDKs against a real server: what is sent fits, what is said is logged."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from ctxmem import ContextManager, wrap
from ctxmem.errors import BudgetError, InvalidInput
from tests.service.upstream import Cut, Pause, Upstream, completion, streamed, strict, torn, whole, words
from tests.service.wires import ANSWER, DELTAS, FUNCTION, HELLO, ITEMS, REASONING, TEXT, claude, gpt, response, said

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


@pytest.fixture
def manager() -> Iterator[ContextManager]:
    with_nothing = ContextManager("sqlite://")
    yield with_nothing
    with_nothing.close()


@pytest.fixture
def chat(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with gpt(upstream.url, "k") as client:
        yield client


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


class TestAsync:
    async def test_sync_and_async_clients_share_a_session(self, upstream: Upstream, manager: ContextManager) -> None:
        """The async client goes on where the other one was, streamed."""
        with gpt(upstream.url, "k") as first:
            wrap(first, manager, session="both").chat.completions.create(model="m", messages=HELLO)
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0) as client:
            managed = wrap(client, manager, session="both")
            more = [{"role": "user", "content": "And now?"}]
            stream = await managed.chat.completions.create(model="m", messages=more, stream=True)
            assert "".join([p.choices[0].delta.content or "" async for p in stream]) == "Hello there."
            whole_answer = await managed.chat.completions.create(model="m", messages=more)
        assert whole_answer.choices[0].message.content == "Hello there."
        assert [m["role"] for m in upstream.last.json["messages"]] == ["user", "assistant"] * 2 + ["user"]

    async def test_a_cancelled_task_leaves_what_came(self, upstream: Upstream, manager: ContextManager) -> None:
        """The question and the piece of the answer are in the log, marked as cut."""
        stream = words("Hello", " there.")
        upstream.answer = lambda request: streamed(stream[:250], Pause(30), stream[250:])
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0) as client:
            managed = wrap(client, manager, session="gone")

            async def listen() -> None:
                async with await managed.chat.completions.create(model="m", messages=HELLO, stream=True) as pieces:
                    async for _ in pieces:
                        heard.set()

            heard = asyncio.Event()
            task = asyncio.create_task(listen())
            await asyncio.wait_for(heard.wait(), 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert logged(manager, "gone") == [("user", True), ("assistant", False)]

    async def test_anthropic_streams(self, upstream: Upstream, manager: ContextManager) -> None:
        """The async helper accumulates the same message as the bare client's."""
        upstream.answer = lambda request: streamed(DELTAS)
        url = upstream.url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
            finals = []
            for each in (wrap(client, manager, session="claude"), client):
                async with each.messages.stream(model="m", max_tokens=64, messages=HELLO) as stream:
                    finals.append((await stream.get_final_message()).model_dump())
        assert finals[0] == finals[1]
        assert logged(manager, "claude") == [("user", True), ("assistant", True)]


class TestAnthropic:
    def test_only_what_is_new_is_enough(self, upstream: Upstream, manager: ContextManager) -> None:
        """The system text and the history come from the log."""
        upstream.answer = lambda request: whole(said(TEXT))
        with claude(upstream.url, "k") as client:
            managed = wrap(client, manager, session="delta")
            managed.messages.create(model="m", max_tokens=64, messages=HELLO, system="Be brief.")
            more = [{"role": "user", "content": "And now?"}]
            answer = managed.messages.create(model="m", max_tokens=64, messages=more)
            assert answer == client.messages.create(model="m", max_tokens=64, messages=HELLO)
            assert managed.messages.count_tokens(model="m", messages=HELLO) is not None
        sent = upstream.received[1].json
        assert sent["system"] == "Be brief."
        assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]


class TestWrap:
    def test_the_clients_own_http_client_sends(self, manager: ContextManager) -> None:
        """Proxies, certificates and test doubles of the caller stay in place."""
        seen: list[httpx2.Request] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200, json=completion())

        http = httpx2.Client(transport=httpx2.MockTransport(answer))
        with openai.OpenAI(base_url="http://nowhere.invalid/v1", api_key="k", http_client=http) as client:
            managed = wrap(client, manager)
            assert managed.chat.completions.create(model="m", messages=HELLO).choices[0].message.content
            assert client._client is http
        assert len(seen) == 1

    def test_a_store_that_is_away_stops_nobody(self, chat: openai.OpenAI, caplog: pytest.LogCaptureFixture) -> None:
        """The request goes on as it came, and the log says so."""
        closed = ContextManager("sqlite://")
        closed.close()
        answer = wrap(chat, closed, session="away").chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == "Hello there."
        assert "without memory" in caplog.text

    @pytest.mark.parametrize("client", [None, "openai", object()])
    def test_other_clients_are_refused(self, manager: ContextManager, client: Any) -> None:
        """With the kinds that are taken."""
        with pytest.raises(InvalidInput, match="AsyncAnthropic"):
            wrap(client, manager)

    @pytest.mark.parametrize("options", [{"session": ""}, {"budget": 0}, {"budget": True}])
    def test_wrong_arguments_are_refused(
        self, chat: openai.OpenAI, manager: ContextManager, options: dict[str, Any]
    ) -> None:
        """At once, not at the first call."""
        with pytest.raises(InvalidInput):
            wrap(chat, manager, **options)

    def test_an_address_is_the_service(self, upstream: Upstream, chat: openai.OpenAI) -> None:
        """The client talks to it, with the session, the user, the policy and the budget in headers."""
        options: dict[str, Any] = {"session": "s1", "user": "alice", "policy": "none", "budget": 900}
        wrap(chat, upstream.url, **options).chat.completions.create(model="m", messages=HELLO)
        assert strict(upstream.last).status == 200
        told = {name: value for name, value in upstream.last.headers.items() if name.startswith("x-ctxmem")}
        names = ("session", "user", "policy", "budget")
        assert told == dict(zip((f"x-ctxmem-{name}" for name in names), ("s1", "alice", "none", "900"), strict=True))
        with pytest.raises(InvalidInput, match="address"):
            wrap(chat, "sqlite:///x.db")
