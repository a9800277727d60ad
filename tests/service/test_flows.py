"""What programs do with the official SDKs and LangChain's models: the same objects directly and through us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import openai
import pytest
from anthropic import beta_tool
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.service.conftest import Gateway
from tests.service.provider import provider
from tests.service.upstream import Upstream, whole
from tests.service.wires import HELLO, claude, gpt

CLOCK = {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}}


class Time(BaseModel):
    """A structured answer."""

    hour: int
    minute: int = 0


@beta_tool
def clock(zone: str) -> str:
    """Tell the time.

    Args:
        zone: where.
    """
    return f"14:30 in {zone}"


def chat_tools(client: openai.OpenAI) -> Iterator[Any]:
    """The loop of every agent: call, result, answer."""
    history: list[Any] = [*HELLO]
    for _ in range(2):
        answer = client.chat.completions.create(
            model="m", messages=history, tools=[{"type": "function", "function": CLOCK}]
        )
        message = answer.choices[0].message
        history.append(message)
        history += [{"role": "tool", "tool_call_id": call.id, "content": "14:30"} for call in message.tool_calls or []]
        yield answer.model_dump()


def chat_helper(client: openai.OpenAI) -> Iterator[Any]:
    with client.chat.completions.stream(
        model="m", messages=HELLO, tools=[{"type": "function", "function": {**CLOCK, "strict": True}}]
    ) as stream:
        yield from (event.model_dump() for event in stream)
        yield stream.get_final_completion().model_dump()


def chat_parse(client: openai.OpenAI) -> Iterator[Any]:
    yield client.chat.completions.parse(model="m", messages=HELLO, response_format=Time).choices[0].message.parsed


def responses_tools(client: openai.OpenAI) -> Iterator[Any]:
    items: list[Any] = [*HELLO]
    for _ in range(2):
        answer = client.responses.create(model="m", input=items, tools=[{"type": "function", "strict": None, **CLOCK}])
        items += answer.output
        calls = [item for item in answer.output if item.type == "function_call"]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "14:30"} for call in calls]
        yield answer.model_dump()


def responses_helper(client: openai.OpenAI) -> Iterator[Any]:
    with client.responses.stream(model="m", input="Hi") as stream:
        yield from stream
        yield stream.get_final_response().output_text


def responses_parse(client: openai.OpenAI) -> Iterator[Any]:
    yield client.responses.parse(model="m", input="Hi", text_format=Time).output_parsed


def responses_asides(client: openai.OpenAI) -> Iterator[Any]:
    yield client.responses.input_tokens.count(model="m", input="Hi").model_dump()
    yield client.responses.compact(model="m", input=HELLO).model_dump()


def claude_runner(client: anthropic.Anthropic) -> Iterator[Any]:
    """The SDK calls the tool and goes on by itself."""
    runner = client.beta.messages.tool_runner(model="m", max_tokens=64, messages=HELLO, tools=[clock])
    yield from (message.model_dump() for message in runner)


def claude_texts(client: anthropic.Anthropic) -> Iterator[Any]:
    with client.messages.stream(model="m", max_tokens=64, messages=HELLO) as stream:
        yield list(stream.text_stream)
        yield stream.get_final_text()


def claude_parse(client: anthropic.Anthropic) -> Iterator[Any]:
    yield client.messages.parse(model="m", max_tokens=64, messages=HELLO, output_format=Time).parsed_output


FLOWS: dict[str, Callable[[Any], Iterator[Any]]] = {
    flow.__name__: flow
    for flow in (
        *(chat_tools, chat_helper, chat_parse, responses_tools, responses_helper, responses_parse, responses_asides),
        *(claude_runner, claude_texts, claude_parse),
    )
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_gives_equal_objects(ctx: Gateway, upstream: Upstream, name: str) -> None:
    """Helpers, parsers and tool loops of the SDKs see what they would see without us."""
    upstream.answer = provider
    make = claude if name.startswith("claude") else gpt
    seen = []
    for url in (upstream.url, ctx.url):
        with make(url, ctx.key) as client:
            seen.append(list(FLOWS[name](client)))
    assert seen[0] == seen[1]
    assert all(seen[0])
    sent = [request.body for request in upstream.received]
    assert sent[: len(sent) // 2] == sent[len(sent) // 2 :]


async def _async_openai(url: str, key: str) -> list[Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        answers: list[Any] = list(
            await asyncio.gather(
                client.chat.completions.create(model="m", messages=HELLO),
                client.responses.create(model="m", input="Hi"),
            )
        )
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        answers += [piece async for piece in stream]
        answers += [event async for event in await client.responses.create(model="m", input="Hi", stream=True)]
    return answers


async def _async_anthropic(url: str, key: str) -> list[Any]:
    asked: Any = {"model": "m", "max_tokens": 64, "messages": HELLO}
    async with anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0) as client:
        answers: list[Any] = list(await asyncio.gather(*(client.messages.create(**asked) for _ in range(3))))
        async with client.messages.stream(**asked) as stream:
            answers += [event.model_dump() async for event in stream]
    return answers


@pytest.mark.parametrize("flow", [_async_openai, _async_anthropic])
def test_async_clients_get_equal_objects(ctx: Gateway, upstream: Upstream, flow: Callable[..., Any]) -> None:
    """Several calls at once, streams too."""
    upstream.answer = provider
    direct, ours = (asyncio.run(flow(url, ctx.key)) for url in (upstream.url, ctx.url))
    assert ours == direct
    assert len(ours) > 4


def _openai_model(url: str, key: str, **more: Any) -> Any:
    clients = {"http_client": openai.DefaultHttpxClient(), "http_async_client": openai.DefaultAsyncHttpxClient()}
    return ChatOpenAI(model="m", base_url=url, api_key=key, max_retries=0, **clients, **more)


def _responses_model(url: str, key: str) -> Any:
    return _openai_model(url, key, use_responses_api=True)


def _anthropic_model(url: str, key: str) -> Any:
    return ChatAnthropic(model_name="m", base_url=url.removesuffix("/v1"), api_key=key, max_retries=0)


def _clients(model: Any) -> tuple[Any, Any]:
    """The SDK's clients in a model of LangChain's."""
    if isinstance(model, ChatOpenAI):
        return model.root_client, model.root_async_client
    return model._client, model._async_client


async def _awaited(model: Any, said: list[Any]) -> Any:
    async with _clients(model)[1]:
        return await model.ainvoke(said)


@pytest.mark.parametrize("make", [_openai_model, _responses_model, _anthropic_model])
def test_models_of_langchain_give_equal_messages(
    ctx: Gateway, upstream: Upstream, make: Callable[[str, str], Any]
) -> None:
    """Whole, streamed, with tools, sync and async."""
    upstream.answer = provider
    said = [SystemMessage("Be brief."), HumanMessage("Wie spät ist es? 🕐")]
    seen: list[list[Any]] = []
    for url in (upstream.url, ctx.url):
        model = make(url, ctx.key)
        tools = model.bind_tools([{"type": "function", "function": CLOCK}])
        with _clients(model)[0]:
            answers = [model.invoke(said), tools.invoke(said), *tools.stream(said), asyncio.run(_awaited(model, said))]
        seen.append([(answer.content, getattr(answer, "tool_calls", [])) for answer in answers])
    assert seen[0] == seen[1]
    assert any(calls for _, calls in seen[0])


STEERED: dict[str, tuple[Callable[[str, str], Any], Callable[[Any], Any]]] = {
    "chat": (gpt, lambda client: client.chat.completions.create(model="m", messages=HELLO)),
    "responses": (gpt, lambda client: client.responses.create(model="m", input="Hi")),
    "messages": (claude, lambda client: client.messages.create(model="m", max_tokens=5, messages=HELLO)),
}


@pytest.mark.parametrize(("steer", "calls"), [({"x_should_retry": "false"}, 1), ({"retry_after_ms": "1"}, 2)])
@pytest.mark.parametrize("name", STEERED)
def test_the_upstream_steers_the_sdks_retries(
    ctx: Gateway, upstream: Upstream, name: str, steer: dict[str, str], calls: int
) -> None:
    """As many calls reach it as reach it directly, and the last one says that it is a retry."""
    make, ask = STEERED[name]
    for url in (upstream.url, ctx.url):
        upstream.received.clear()
        upstream.answer = lambda request: (
            whole({"error": {"message": "busy"}}, 429, **steer) if len(upstream.received) == 1 else provider(request)
        )
        busy = suppress(openai.RateLimitError, anthropic.RateLimitError)
        with make(url, ctx.key) as client, busy:
            ask(client.with_options(max_retries=2))
        assert len(upstream.received) == calls
        assert upstream.last.headers["x-stainless-retry-count"] == str(calls - 1)
