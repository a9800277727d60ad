"""Anthropic Messages and OpenAI Responses: the official SDKs get equal objects directly and through us."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import anthropic
import openai
import pytest

from tests.service.conftest import Gateway
from tests.service.upstream import Cut, Upstream, streamed, whole
from tests.service.wires import (
    ANSWER,
    DELTAS,
    HELLO,
    ITEMS,
    MESSAGES,
    RESPONSES,
    TEXT,
    claude,
    gpt,
    response,
    said,
    typed,
)

MODES = ("on", "observe", "off")


def both(ctx: Gateway, upstream: Upstream, make: Callable[..., Any], ask: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What the SDK makes of the upstream, directly and through us; exceptions count as answers."""
    results: list[Any] = []
    for url in (upstream.url, ctx.url):
        with make(url, ctx.key) as client:
            try:
                results.append(ask(client))
            except (anthropic.APIError, openai.APIError) as error:
                results.append(error)
    return results[0], results[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_equal_objects(ctx: Gateway, upstream: Upstream, name: str, mode: str) -> None:
    """Thinking, signatures, server tools and usage come through whole."""
    upstream.answer = lambda request: whole(MESSAGES[name], request_id="req_1")
    direct, ours = both(
        ctx,
        upstream,
        claude,
        lambda client: client.messages.create(
            model="claude-x", max_tokens=64, messages=HELLO, extra_headers={"x-ctxmem-mode": mode}
        ),
    )
    assert ours == direct
    assert ours.model_dump() == direct.model_dump()
    assert ours._request_id == direct._request_id == "req_1"
    assert upstream.received[0].body == upstream.received[1].body


@pytest.mark.parametrize("mode", MODES)
def test_message_streams_are_equal_events(ctx: Gateway, upstream: Upstream, mode: str) -> None:
    """Every event arrives in order, and the SDK's own helper accumulates the same message."""
    upstream.answer = lambda request: streamed(DELTAS)

    def drained(client: anthropic.Anthropic) -> Any:
        with client.messages.stream(
            model="claude-x", max_tokens=64, messages=HELLO, extra_headers={"x-ctxmem-mode": mode}
        ) as stream:
            return [event.model_dump() for event in stream], stream.get_final_message().model_dump()

    direct, ours = both(ctx, upstream, claude, drained)
    assert ours == direct
    assert ours[1]["content"][0]["signature"] == "c2ln"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RESPONSES)
def test_responses_are_equal_objects(ctx: Gateway, upstream: Upstream, name: str, mode: str) -> None:
    """Reasoning, calls and items of unknown type come through whole."""
    upstream.answer = lambda request: whole(RESPONSES[name])
    direct, ours = both(
        ctx,
        upstream,
        gpt,
        lambda client: client.responses.create(model="gpt-x", input="Hi", extra_headers={"x-ctxmem-mode": mode}),
    )
    assert ours == direct
    assert upstream.received[0].body == upstream.received[1].body


@pytest.mark.parametrize("mode", MODES)
def test_response_streams_are_equal_events(ctx: Gateway, upstream: Upstream, mode: str) -> None:
    """Every event arrives in order, unknown ones too."""
    upstream.answer = lambda request: streamed(ITEMS)
    direct, ours = both(
        ctx,
        upstream,
        gpt,
        lambda client: list(
            client.responses.create(model="gpt-x", input="Hi", stream=True, extra_headers={"x-ctxmem-mode": mode})
        ),
    )
    assert ours == direct
    assert len(ours) == 6


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize(("path", "stream"), [("/v1/messages", DELTAS), ("/v1/responses", ITEMS)])
def test_stream_bytes_pass_however_they_are_cut(
    ctx: Gateway, upstream: Upstream, path: str, stream: bytes, size: int
) -> None:
    """Pieces that split characters and lines give the same bytes."""
    upstream.answer = lambda request: streamed(*(stream[i : i + size] for i in range(0, len(stream), size)))
    body = {"model": "m", "max_tokens": 5, "messages": HELLO, "input": "Hi", "stream": True}
    assert ctx.post(path, body).body == stream


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 529])
def test_errors_of_anthropic_are_its_own(ctx: Gateway, upstream: Upstream, status: int) -> None:
    """The same exception class, body and request id."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}, "request_id": "req_1"}
    upstream.answer = lambda request: whole(error, status, request_id="req_1", retry_after="7")
    direct, ours = both(ctx, upstream, claude, lambda c: c.messages.create(model="m", max_tokens=5, messages=HELLO))
    assert type(ours) is type(direct)
    assert (ours.status_code, ours.body, ours.request_id) == (status, direct.body, "req_1")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 503])
def test_errors_of_responses_are_the_upstreams_own(ctx: Gateway, upstream: Upstream, status: int) -> None:
    """The same exception class, body, request id and headers that steer retries."""
    error = {"error": {"message": "no", "type": "some_error", "param": "input", "code": "rate_limit_exceeded"}}
    steer = {"retry_after": "7", "retry_after_ms": "7000", "x_should_retry": "false"}
    upstream.answer = lambda request: whole(error, status, x_request_id="req_1", **steer)
    direct, ours = both(ctx, upstream, gpt, lambda client: client.responses.create(model="m", input="Hi"))
    assert type(ours) is type(direct)
    assert (ours.status_code, ours.body, ours.request_id) == (status, direct.body, "req_1")
    assert [ours.response.headers[name.replace("_", "-")] for name in steer] == list(steer.values())


FAILURES: dict[str, Callable[[Any, list[Any]], Any]] = {
    "messages": lambda client, seen: seen.extend(
        client.messages.create(model="m", max_tokens=5, messages=HELLO, stream=True)
    ),
    "responses": lambda client, seen: seen.extend(client.responses.create(model="m", input="Hi", stream=True)),
}
BROKEN = {
    "messages": typed({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
    "responses": b'event: error\ndata: {"type":"error","error":{"message":"busy","code":"overloaded"}}\n\n',
}
STREAMS = {"messages": (claude, DELTAS), "responses": (gpt, ITEMS)}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_in_mid_stream_is_seen_as_by_a_direct_client(ctx: Gateway, upstream: Upstream, name: str) -> None:
    """The same events, then the same exception."""
    make, stream = STREAMS[name]
    upstream.answer = lambda request: streamed(stream.partition(b"\n\n")[0] + b"\n\n" + BROKEN[name])
    seen: list[list[Any]] = [[], []]
    turns = iter(seen)
    direct, ours = both(ctx, upstream, make, lambda client: FAILURES[name](client, next(turns)))
    assert isinstance(direct, (anthropic.APIStatusError, openai.APIError))
    assert (type(ours), str(ours)) == (type(direct), str(direct))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


@pytest.mark.parametrize("name", FAILURES)
def test_a_cut_stream_is_seen_as_broken(ctx: Gateway, upstream: Upstream, name: str) -> None:
    """The events that came, and no clean end."""
    make, stream = STREAMS[name]
    upstream.answer = lambda request: streamed(stream.partition(b"\n\n")[0] + b"\n\n", Cut())
    for url in (upstream.url, ctx.url):
        seen: list[Any] = []
        with make(url, ctx.key) as client, pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
            FAILURES[name](client, seen)
        assert len(seen) == 1


def test_our_refusals_read_like_anthropics(ctx: Gateway) -> None:
    """The SDK finds its error type and message."""
    with claude(ctx.url, ctx.key) as client, pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model="m", max_tokens=5, messages=[{"role": "alien", "content": "x"}])
    assert refused.value.body["error"]["type"] == "invalid_request_error"


def test_the_token_count_passes(ctx: Gateway, upstream: Upstream) -> None:
    """What the provider would count is counted by the provider, of the request as it came."""
    upstream.answer = lambda request: whole({"input_tokens": 42})
    direct, ours = both(ctx, upstream, claude, lambda c: c.messages.count_tokens(model="m", messages=HELLO))
    assert ours == direct
    assert upstream.received[0].body == upstream.received[1].body


def test_betas_keep_their_order(ctx: Gateway, upstream: Upstream) -> None:
    """Headers of the API go on as they came."""
    upstream.answer = lambda request: whole(said(TEXT))
    with claude(ctx.url, ctx.key) as client:
        client.beta.messages.create(model="m", max_tokens=5, messages=HELLO, betas=["b-2", "a-1", "c-3"])
    assert upstream.last.headers["anthropic-beta"] == "b-2,a-1,c-3"
    assert upstream.last.headers["anthropic-version"]
    assert ctx.key not in str(upstream.last.headers)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/responses", {"previous_response_id": "resp_0"}),
        ("/v1/responses", {"conversation": "conv_1"}),
        ("/v1/responses", {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "rs_1"}]}),
        ("/v1/responses", {"input": [{"type": "compaction", "encrypted_content": "x"}]}),
        ("/v1/messages", {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
        ("/v1/messages", {"messages": [{"role": "assistant", "content": [{"type": "compaction", "content": "x"}]}]}),
    ],
)
def test_the_providers_history_is_the_providers(
    ctx: Gateway, upstream: Upstream, path: str, more: dict[str, Any]
) -> None:
    """Where the provider holds or edits the history, the request goes as it came, whatever the budget."""
    upstream.answer = lambda request: whole(response(ANSWER))
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": HELLO, "input": "x" * 4000, **more}).encode()
    answer = ctx.post(path, body, x_ctxmem_budget="50")
    assert answer.headers["x-ctxmem-action"] == "bypass;reason=provider_history"
    assert upstream.last.sha256 == sha256(body).hexdigest()
