"""A client cannot tell the gateway from its upstream: the official SDK, directly and through us, gets equal objects."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import openai
import pytest
import zstandard

from tests.service.conftest import Gateway, talk
from tests.service.upstream import Cut, Reply, Upstream, chunk, completion, delta, events, streamed, whole, words

MODES = ("on", "observe", "off")
USER = [{"role": "user", "content": "Wie spät ist es? 🕐"}]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "Europe/Berlin"}'}},
    {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]
TOOL = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}

CALL_STREAM = events(
    chunk(delta(role="assistant", content=None, tool_calls=[{"index": 0, **CALLS[0]}])),
    chunk(
        delta(tool_calls=[{"index": 1, "id": "c2", "type": "function", "function": {"name": "time", "arguments": ""}}])
    ),
    chunk(delta(tool_calls=[{"index": 1, "function": {"arguments": "{}"}}])),
    chunk(delta(finish="tool_calls")),
    "[DONE]",
)
TWO_STREAM = events(
    chunk(delta(0, role="assistant", content="A")),
    chunk(delta(1, role="assistant", content="B")),
    chunk(delta(1, content="b"), delta(0, content="a")),
    chunk(delta(0, finish="stop")),
    chunk(delta(1, finish="length")),
    chunk(
        usage={
            "prompt_tokens": 5,
            "completion_tokens": 4,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
    ),
    "[DONE]",
)
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": None}


def _two() -> dict[str, Any]:
    both = completion("A")
    both["choices"].append({"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "length"})
    return both


def _logprobs() -> dict[str, Any]:
    said = completion("Hi", refusal=None, annotations=[], reasoning_content="because")
    said["choices"][0]["logprobs"] = LOGPROBS
    said["usage"]["prompt_tokens_details"] = {"cached_tokens": 7, "cache_write_tokens": 2}
    return said


WHOLE = {
    "text": (whole(completion("Halb drei. 🕝")), {}),
    "parallel tool calls": (whole(completion(None, tool_calls=CALLS)), {"tools": [TOOL], "parallel_tool_calls": True}),
    "two choices": (whole(_two()), {"n": 2}),
    "logprobs, reasoning and cached tokens": (whole(_logprobs()), {"logprobs": True, "top_logprobs": 2}),
    "refusal": (whole(completion(None, refusal="No.")), {}),
}
STREAMS = {
    "text": words("Halb ", "drei. ", "🕝"),
    "parallel tool calls": CALL_STREAM,
    "two choices, interleaved, with usage": TWO_STREAM,
    "carriage returns": words("a", "b").replace(b"\n", b"\r"),
    "both line ends and comments": b": ping\r\n\r\n" + words("a", "b").replace(b"\n", b"\r\n"),
    "no end mark": events(chunk(delta(role="assistant", content="a")), chunk(delta(finish="stop"))),
}


def _both(ctx: Gateway, upstream: Upstream, ask: Callable[[openai.OpenAI], Any]) -> tuple[Any, Any]:
    """What the SDK makes of the upstream's answer, directly and through us; exceptions count as answers."""
    results = []
    for url in (upstream.url, ctx.url):
        client = openai.OpenAI(base_url=url, api_key=ctx.key, max_retries=0)
        try:
            results.append(ask(client))
        except openai.APIError as error:
            results.append(error)
        finally:
            client.close()
    return results[0], results[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WHOLE)
def test_completions_are_equal_objects(ctx: Gateway, upstream: Upstream, name: str, mode: str) -> None:
    """Tools, several choices, logprobs, refusals and usage come through whole."""
    reply, options = WHOLE[name]
    upstream.answer = lambda request: reply
    direct, ours = _both(
        ctx,
        upstream,
        lambda client: client.chat.completions.create(
            model="m", messages=USER, extra_headers={"x-ctxmem-mode": mode}, **options
        ),
    )
    assert ours == direct
    assert ours.model_dump() == direct.model_dump()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_equal_objects(ctx: Gateway, upstream: Upstream, name: str, mode: str) -> None:
    """Every chunk arrives, in order, whatever the line ends."""
    upstream.answer = lambda request: streamed(STREAMS[name])
    direct, ours = _both(
        ctx,
        upstream,
        lambda client: list(
            client.chat.completions.create(model="m", messages=USER, stream=True, extra_headers={"x-ctxmem-mode": mode})
        ),
    )
    assert ours == direct
    assert ours


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_stream_bytes_pass_however_they_are_cut(ctx: Gateway, upstream: Upstream, size: int, mode: str) -> None:
    """Pieces that split characters, line ends and the end mark give the same bytes."""
    stream = words("ä🕐", "b")
    upstream.answer = lambda request: streamed(*(stream[i : i + size] for i in range(0, len(stream), size)))
    answer = ctx.chat(talk("hi", stream=True), x_ctxmem_mode=mode)
    assert answer.body == stream
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529])
def test_errors_are_the_upstreams_own(ctx: Gateway, upstream: Upstream, status: int, mode: str) -> None:
    """Status, body and the headers that steer retries come through, one call for one call."""
    error = {"error": {"message": "no", "type": "some_error", "param": "x", "code": "rate_limit_exceeded"}}
    upstream.answer = lambda request: whole(
        error, status, retry_after="7", retry_after_ms="7000", x_should_retry="false", x_request_id="req_1"
    )
    direct, ours = _both(
        ctx,
        upstream,
        lambda client: client.chat.completions.create(model="m", messages=USER, extra_headers={"x-ctxmem-mode": mode}),
    )
    assert type(ours) is type(direct)
    assert (ours.status_code, ours.body, ours.code, ours.param) == (status, direct.body, direct.code, direct.param)
    assert ours.request_id == direct.request_id == "req_1"
    steering = ("retry-after", "retry-after-ms", "x-should-retry")
    assert [ours.response.headers[name] for name in steering] == ["7", "7000", "false"]
    assert len(upstream.received) == 2


@pytest.mark.parametrize("mode", MODES)
def test_an_error_in_mid_stream_is_seen_as_by_a_direct_client(ctx: Gateway, upstream: Upstream, mode: str) -> None:
    """The SDK raises the same exception after the same chunks."""
    broken = {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": "overloaded"}}
    upstream.answer = lambda request: streamed(events(chunk(delta(role="assistant", content="a")), broken))
    direct, ours = _both(ctx, upstream, lambda client: _drained(client, mode))
    assert type(ours) is type(direct) is openai.APIError
    assert ours.message == direct.message


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_stream_is_seen_as_broken(ctx: Gateway, upstream: Upstream, mode: str) -> None:
    """A stream without its end is no clean end."""
    upstream.answer = lambda request: streamed(events(chunk(delta(role="assistant", content="a"))), Cut())
    for url in (upstream.url, ctx.url):
        with openai.OpenAI(base_url=url, api_key=ctx.key, max_retries=0) as client:
            seen: list[Any] = []
            with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
                seen.extend(_stream(client, mode))
            assert [piece.choices[0].delta.content for piece in seen] == ["a"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
        b'{ "messages" : [ {"content":"a\\u00e9\\ud83d\\ude00","role":"user"} ],\n'
        b' "model":"m", "seed": 12345678901234567890123 }',
        b'{"temperature":1.0,"top_p":1e-7,"model":"m","stop":null,"x_unknown":{"a":[1.50]},'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"\xc3\xa9"}],"name":"n"}]}',
        b'\n{"model":"m","messages":[{"role":"user","content":"hi","extra":-0.0}],"logit_bias":{"50256":-100}}\n',
    ],
    ids=["compact", "blanks, escapes and a long number", "number formats and unknown fields", "line ends around"],
)
@pytest.mark.parametrize("mode", MODES)
def test_untouched_requests_arrive_byte_for_byte(ctx: Gateway, upstream: Upstream, body: bytes, mode: str) -> None:
    """Numbers, escapes, order, blanks and unknown fields are not ours to change."""
    answer = ctx.chat(body, x_ctxmem_mode=mode)
    assert answer.status == 200
    assert upstream.last.sha256 == sha256(body).hexdigest()
    assert upstream.last.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_stands_twice_reaches_the_upstream_once(ctx: Gateway, upstream: Upstream, mode: str) -> None:
    """What routes the request is what the upstream reads."""
    ctx.chat(b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"m"}', x_ctxmem_mode=mode)
    assert upstream.last.body == b'{"model":"m","messages":[{"role":"user","content":"x"}]}'


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_packed_requests_are_read_and_passed_on_packed(
    ctx: Gateway, upstream: Upstream, encoding: str, pack: Callable[[bytes], bytes], mode: str
) -> None:
    """The upstream gets the packed bytes that came."""
    packed = pack(json.dumps(talk("hello")).encode())
    upstream.answer = lambda request: whole(completion())
    assert ctx.chat(packed, content_encoding=encoding, x_ctxmem_mode=mode).status == 200
    assert upstream.last.body == packed
    assert upstream.last.headers["content-encoding"] == encoding


def test_a_packed_answer_passes_and_is_understood(ctx: Gateway, upstream: Upstream) -> None:
    """An upstream that packs although it was asked not to is still recorded."""
    body = gzip.compress(json.dumps(completion("packed")).encode())
    headers = (("content-type", "application/json"), ("content-encoding", "gzip"))
    upstream.answer = lambda request: Reply((body,), headers=headers, length=len(body))
    answer = ctx.chat(talk("hi"))
    assert answer.body == body
    assert answer.headers["content-encoding"] == "gzip"
    logged = ctx.get(f"/v1/sessions/{answer.headers['x-ctxmem-session']}/events").json["events"]
    assert logged[-1]["message"]["content"] == "packed"


def test_the_upstream_gets_its_own_key_and_none_of_our_headers(ctx: Gateway, upstream: Upstream) -> None:
    """The client's credential, cookies and wishes to us stay here; everything else goes on."""
    ctx.chat(talk("hi"), cookie="a=b", x_ctxmem_user="u", x_forwarded_for="1.2.3.4", x_custom="kept", te="trailers")
    sent = upstream.last.headers
    assert sent["x-custom"] == "kept"
    assert not {"authorization", "cookie", "x-ctxmem-user", "x-forwarded-for", "te"} & set(sent)
    assert ctx.key not in str(sent)


def test_redirects_are_answers(ctx: Gateway, upstream: Upstream) -> None:
    """Nobody but the settings says where requests go."""
    upstream.answer = lambda request: whole({}, 307, location="http://127.0.0.1:1/steal")
    answer = ctx.chat(talk("hi"))
    assert (answer.status, len(upstream.received)) == (307, 1)


def _stream(client: openai.OpenAI, mode: str) -> Any:
    return client.chat.completions.create(model="m", messages=USER, stream=True, extra_headers={"x-ctxmem-mode": mode})


def _drained(client: openai.OpenAI, mode: str) -> list[Any]:
    return list(_stream(client, mode))
