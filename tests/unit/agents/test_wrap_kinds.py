"""Wrapped async and Anthropic clients, and what wrap takes and refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from ctxmem import ContextManager, wrap
from ctxmem.errors import InvalidInput
from tests.service.upstream import Pause, Upstream, completion, streamed, strict, whole, words
from tests.service.wires import DELTAS, HELLO, TEXT, claude, gpt, said

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}


def logged(manager: ContextManager, session: str) -> list[tuple[str, bool]]:
    return [(event.role, event.complete) for event in manager.session(session).events()]


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
