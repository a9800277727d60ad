"""What callers really hand to a wrapped client: foreign objects, orphans, parallel calls, parts, huge results."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ctxmem import ContextManager, wrap
from ctxmem.ids import item_of_event
from tests.service.upstream import Upstream, completion, torn, whole
from tests.service.wires import gpt

TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
HUGE = " ".join(f"Line {k} of the log says that part {k} was seen and seemed fine." for k in range(300))


def called(*names: str) -> dict[str, Any]:
    calls = [{"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}} for name in names]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name: str, content: Any = "fine") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def test_the_sdks_own_objects_may_be_said_again(
    chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
) -> None:
    """An answer appended as it came, a tuple for a list: the provider gets what it gets from the client."""
    function = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    upstream.answer = lambda request: whole(completion(None, tool_calls=[function]))
    for client in (wrap(chat, manager, session="objects", policy="none"), chat):
        asked: list[Any] = [{"role": "user", "content": "Look."}]
        asked.append(client.chat.completions.create(model="m", messages=asked, tools=TOOLS).choices[0].message)
        asked.append(result("c1", [{"type": "text", "text": "seen"}]))
        client.chat.completions.create(model="m", messages=tuple(asked), tools=TOOLS)
    bodies = [received.body for received in upstream.received]
    assert bodies[:2] == bodies[2:]
    assert [event.role for event in manager.session("objects").events()] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("content", [HUGE, [{"type": "text", "text": HUGE}]], ids=["text", "parts"])
def test_a_huge_result_fits_and_comes_back(
    chat: openai.OpenAI, upstream: Upstream, manager: ContextManager, content: Any
) -> None:
    """Its call keeps it, shortened; the log has every byte of it; the caller's list is its own."""
    managed = wrap(chat, manager, budget=4000)
    asked = [{"role": "user", "content": "Look at part 17."}, called("c1", "c2"), result("c2"), result("c1", content)]
    before = copy.deepcopy(asked)
    raw = managed.chat.completions.with_raw_response.create(model="m", messages=asked, tools=TOOLS)
    assert asked == before
    receipt = manager.receipt(raw.headers["x-ctxmem-request-id"])
    assert receipt.tokens <= 4000
    assert not torn(upstream.last.json["messages"])
    assert len(upstream.last.body) < len(HUGE)
    assert any(HUGE.encode() in manager.original(item_of_event(item.event_id)) for item in receipt.items)


def test_parallel_calls_and_parts_stay_whole_over_many_turns(
    chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
) -> None:
    """Three calls a turn, answered out of order, pictures between: never torn, never over the budget."""
    managed = wrap(chat, manager, session="parallel", budget=8000)
    asked: list[dict[str, Any]] = []
    for turn in range(20):
        asked.append({"role": "user", "content": [{"type": "text", "text": f"Turn {turn}. " + HUGE[:400]}, IMAGE]})
        names = [f"{turn}-{k}" for k in range(3)]
        asked += [called(*names), *(result(name, HUGE[:900]) for name in reversed(names))]
        raw = managed.chat.completions.with_raw_response.create(model="m", messages=asked, tools=TOOLS)
        assert manager.receipt(raw.headers["x-ctxmem-request-id"]).tokens <= 8000
        asked.append({"role": "assistant", "content": "Hello there."})
    assert not any(torn(received.json["messages"]) for received in upstream.received)


def test_an_orphan_result_is_the_providers_to_refuse(
    chat: openai.OpenAI, upstream: Upstream, manager: ContextManager
) -> None:
    """The same error as without us, and the next turn is as good as ever."""
    managed = wrap(chat, manager, policy="none")
    asked = [{"role": "user", "content": "Look."}, result("nobody's")]
    errors = []
    for client in (managed, chat):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="m", messages=asked)
        errors.append(caught.value.body)
    assert errors[0] == errors[1]
    good = [{"role": "user", "content": "Look."}, called("c1"), result("c1")]
    assert managed.chat.completions.create(model="m", messages=good).choices[0].message.content == "Hello there."


async def test_sync_async_and_cancelled_callers_share_a_manager(upstream: Upstream, manager: ContextManager) -> None:
    """Twelve sessions at once, six of them awaited, one task cancelled in between: each has its turns in order."""

    def ask(session: str, text: str) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": f"{session} {text}"}]}

    def talk(number: int) -> None:
        with gpt(upstream.url, "k") as client:
            managed = wrap(client, manager, session=f"s{number}")
            for text in ("one", "two", "three"):
                managed.chat.completions.create(**ask(f"s{number}", text))

    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0) as client:

        async def atalk(number: int) -> None:
            managed = wrap(client, manager, session=f"a{number}")
            for text in ("one", "two", "three"):
                await managed.chat.completions.create(**ask(f"a{number}", text))

        gone = asyncio.create_task(atalk(99))
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(6) as pool:
            threads = [loop.run_in_executor(pool, talk, number) for number in range(6)]
            awaited = [atalk(number) for number in range(6)]
            await asyncio.sleep(0.02)
            gone.cancel()
            await asyncio.gather(*threads, *awaited)
        await atalk(98)
    for session in [f"{kind}{number}" for kind in "sa" for number in range(6)]:
        said = [event.raw.decode() for event in manager.session(session).events() if event.role == "user"]
        assert [f'"{session} {text}"' in raw for raw, text in zip(said, ("one", "two", "three"), strict=True)] == [
            True
        ] * 3
        assert [event.role for event in manager.session(session).events()] == ["user", "assistant"] * 3
