"""Bad input gets a clear 4xx with an OpenAI error object, never a 500, and never reaches the upstream."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import psutil
import pytest
import zstandard
from msgspec.structs import replace

from tests.service.conftest import Gateway, parse, received, talk
from tests.service.upstream import Upstream, completion, torn, whole

DEEP = b"[" * 100_000 + b"]" * 100_000
USER = b'[{"role":"user","content":"hi"}]'

MALFORMED = {
    "empty": b"",
    "no object": b"[]",
    "a string": b'"model"',
    "null": b"null",
    "truncated": b'{"model":"m","messages":[{"role":"us',
    "trailing text": b'{"model":"m","messages":' + USER + b"} x",
    "two objects": b"{}{}",
    "NaN": b'{"model":"m","temperature":NaN,"messages":' + USER + b"}",
    "infinity": b'{"model":"m","temperature":-Infinity,"messages":' + USER + b"}",
    "single quotes": b"{'model':'m'}",
    "bad UTF-8 in a value": b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "bad UTF-8 in a key": b'{"model":"m","\xff":1,"messages":' + USER + b"}",
    "cut UTF-8": b'{"model":"m","messages":[{"role":"user","content":"\xc3"}]}',
    "lone surrogate": b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    "bad escape": b'{"model":"m","messages":[{"role":"user","content":"\\x41"}]}',
    "control character": b'{"model":"m","messages":[{"role":"user","content":"a\x00b"}]}',
    "byte order mark": b'\xef\xbb\xbf{"model":"m","messages":' + USER + b"}",
    "100,000 deep": b'{"model":"m","messages":' + DEEP + b"}",
    "100,000 deep elsewhere": b'{"model":"m","messages":' + USER + b',"metadata":' + DEEP + b"}",
    "129 deep": b'{"model":"m","messages":' + USER + b',"tools":' + b"[" * 128 + b"]" * 128 + b"}",
    "objects 129 deep": b'{"model":"m","messages":' + USER + b',"x":' + b'{"a":' * 128 + b"1" + b"}" * 128 + b"}",
    "no model": b'{"messages":' + USER + b"}",
    "model of another type": b'{"model":7,"messages":' + USER + b"}",
    "empty model": b'{"model":"","messages":' + USER + b"}",
}
MISSHAPEN: dict[str, tuple[Any, str]] = {
    "no messages": ({}, "messages"),
    "messages of another type": ({"messages": "hi"}, "messages"),
    "messages null": ({"messages": None}, "messages"),
    "no message at all": ({"messages": []}, "messages"),
    "a message that is none": ({"messages": ["hi"]}, "messages[0]"),
    "unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "role of another type": ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
    "no role": ({"messages": [{"content": "x"}]}, "messages[0].role"),
    "content of another type": ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    "content a list of texts": ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content"),
    "tool calls of another type": (
        {"messages": [{"role": "assistant", "tool_calls": {"id": "x"}}]},
        "messages[0].tool_calls",
    ),
    "tool_call_id of another type": (
        {"messages": [{"role": "tool", "tool_call_id": 1, "content": "x"}]},
        "messages[0].tool_call_id",
    ),
    "too many messages": ({"messages": [{"role": "user", "content": "x"}] * 10_001}, "messages"),
}
WISHES = {
    "x-ctxmem-mode": "sideways",
    "x-ctxmem-budget": "many",
    "x-ctxmem-policy": "nobody-knows",
    "x-ctxmem-session": "s" * 300,
}


@pytest.mark.parametrize("mode", ["on", "observe", "off"])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_refused(ctx: Gateway, upstream: Upstream, name: str, mode: str) -> None:
    """Whatever the mode: what we cannot read, we cannot route."""
    answer = ctx.chat(MALFORMED[name], x_ctxmem_mode=mode)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert upstream.received == []


@pytest.mark.parametrize("name", MISSHAPEN)
def test_a_misshapen_request_is_refused_by_name(ctx: Gateway, upstream: Upstream, name: str) -> None:
    """The error names the place."""
    content, param = MISSHAPEN[name]
    answer = ctx.chat({"model": "m", **content})
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param
    assert upstream.received == []


@pytest.mark.parametrize("name", WISHES)
def test_a_wish_that_makes_no_sense_is_refused(ctx: Gateway, upstream: Upstream, name: str) -> None:
    """A header we do not understand is not ignored."""
    answer = ctx.chat(talk("hi"), **{name.replace("-", "_"): WISHES[name]})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error"), answer.body
    assert upstream.received == []


@pytest.mark.parametrize("budget", ["0", "-5", "1.5", "9" * 30, "²"])
def test_a_budget_is_a_whole_number_of_tokens(ctx: Gateway, budget: str) -> None:
    """Signs, fractions, other digits and absurd sizes are refused."""
    with ctx.connect() as connection:
        body = json.dumps(talk("hi")).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        head += f"content-length: {len(body)}\r\n"
        connection.sendall(head.encode() + f"x-ctxmem-budget: {budget}\r\n\r\n".encode() + body)
        answer = parse(received(connection))
    assert (answer.status, answer.error["param"]) in [(400, "x-ctxmem-budget"), (400, "budget")]


def test_a_budget_below_the_pinned_part_is_a_context_length_error(ctx: Gateway, upstream: Upstream) -> None:
    """Clients branch on this code; the messages are logged all the same."""
    answer = ctx.chat(talk("word " * 200), x_ctxmem_budget="20", x_ctxmem_session="tight")
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert upstream.received == []
    assert len(ctx.get("/v1/sessions/tight/events").json["events"]) == 1


def test_observing_never_refuses_a_budget(ctx: Gateway, upstream: Upstream) -> None:
    """Who only watches changes nothing."""
    answer = ctx.chat(talk("word " * 200), x_ctxmem_budget="20", x_ctxmem_mode="observe")
    assert answer.status == 200
    assert len(upstream.received) == 1


def test_an_unknown_model_is_not_found(ctx: Gateway, upstream: Upstream) -> None:
    """`up` takes any model; a name nobody serves is a 404 by its OpenAI code."""
    del upstream
    routes = ctx.app.service.upstreams
    kept = dict(routes)
    routes["up"].settings = replace(kept["up"].settings, models=("only-this",))
    try:
        answer = ctx.chat(talk("hi"))
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert ctx.chat({**talk("hi"), "model": "up/only-this"}).status == 200
        assert ctx.chat({**talk("hi"), "model": "up/other"}).status == 404
    finally:
        routes["up"].settings = replace(kept["up"].settings, models=("*",))


def test_orphan_tool_messages_are_the_upstreams_business(ctx: Gateway, upstream: Upstream) -> None:
    """They pass untouched, and the upstream's refusal comes back as its own."""
    orphan = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": "y"}],
    }
    answer = ctx.chat(orphan)
    assert upstream.last.json == orphan
    assert (answer.status, answer.error["message"]) == (400, torn(orphan["messages"]))


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_huge_body_is_refused_before_it_is_read(ctx: Gateway, upstream: Upstream, declared: bool) -> None:
    """413 after at most the cap, and the memory stays."""
    before = psutil.Process().memory_info().rss
    size = 40 * 2**20
    framing = f"content-length: {size}" if declared else "transfer-encoding: chunked"
    with ctx.connect() as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n".encode())
        piece = b"x" * 2**20
        try:
            for _ in range(40):
                connection.sendall(piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            pass
        answer = parse(received(connection))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert upstream.received == []
    assert psutil.Process().memory_info().rss - before < 150 * 2**20


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_bomb_is_refused_by_what_it_unpacks_to(ctx: Gateway, encoding: str, pack: Any) -> None:
    """The cap counts unpacked bytes."""
    bomb = pack(b'{"model":"m","messages":"' + b"x" * (64 * 2**20) + b'"}')
    assert len(bomb) < 2**20
    answer = ctx.chat(bomb, content_encoding=encoding)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", b"no gzip"), ("gzip", gzip.compress(b"{}" * 999)[:-9]), ("zstd", b"no zstd"), ("br", b"x")],
    ids=["no gzip", "cut gzip", "no zstd", "unknown"],  # not by the bytes, of which gzip's have the time in them
)
def test_a_body_packed_wrongly_is_refused(ctx: Gateway, encoding: str, body: bytes) -> None:
    """Damaged, cut off, or in an encoding we do not know."""
    answer = ctx.chat(body, content_encoding=encoding)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


def test_a_body_that_does_not_come_is_given_up_on(ctx: Gateway) -> None:
    """The deadline is for the whole body, however slowly it trickles."""
    with ctx.connect() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
        answer = parse(received(connection))
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")


def test_a_body_cut_off_by_its_client_harms_nobody(ctx: Gateway, upstream: Upstream) -> None:
    """The next request is served."""
    with ctx.connect() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
    upstream.answer = lambda request: whole(completion())
    assert ctx.chat(talk("hi")).status == 200


CONTROL = {
    "context": ("/v1/context", {"messages": [{"role": "user", "content": "x"}], "budget": "much"}, "budget"),
    "context, unknown field": ("/v1/context", {"messages": [{"role": "user", "content": "x"}], "budgte": 5}, "budgte"),
    "context, no messages": ("/v1/context", {"model": "m"}, "messages"),
    "context, a reserve too large": (
        "/v1/context",
        {"messages": [{"role": "user", "content": "x"}], "budget": 5, "reserve": 5},
        "reserve",
    ),
    "compress, nothing": ("/v1/compress", {"budget": 5}, None),
    "compress, both": ("/v1/compress", {"text": "a", "messages": [], "budget": 5}, None),
    "compress, no size": ("/v1/compress", {"text": "a"}, "budget"),
    "compress, two sizes": ("/v1/compress", {"text": "a", "budget": 5, "ratio": 0.5}, "budget"),
    "compress, wrong ratio": ("/v1/compress", {"text": "a", "ratio": 2}, "ratio"),
    "compress, wrong unit": ("/v1/compress", {"text": "a", "ratio": 0.5, "unit": "page"}, "unit"),
    "tokenize, nothing": ("/v1/tokenize", {"model": "m"}, None),
    "append, wrong role": ("/v1/sessions/s/events", {"messages": [{"role": "x"}]}, "messages[0].role"),
    "append, wrong revision": (
        "/v1/sessions/s/events",
        {"messages": [{"role": "user", "content": "x"}], "expected_revision": -1},
        "expected_revision",
    ),
    "sessions, long id": ("/v1/sessions", {"session_id": "x" * 300}, "session_id"),
}


@pytest.mark.parametrize("name", CONTROL)
def test_the_control_plane_refuses_by_name(ctx: Gateway, name: str) -> None:
    """Every route of ours has the same error object."""
    path, body, param = CONTROL[name]
    answer = ctx.post(path, body)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param


@pytest.mark.parametrize("name", [name for name in MALFORMED if "model" not in name])
def test_the_control_plane_reads_bodies_as_strictly(ctx: Gateway, name: str) -> None:
    """The same reader stands behind every POST."""
    answer = ctx.post("/v1/context", MALFORMED[name])
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error"), answer.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/sessions", 405),
        ("GET", "/v1/requests/rq_0", 404),
        ("GET", "/v1/sessions/nobody", 404),
        ("GET", "/v1/sessions/nobody/events", 404),
        ("DELETE", "/v1/sessions/nobody", 404),
        ("GET", "/v1/sessions/nobody/export", 404),
        ("GET", "/v1/items/it_0/restore", 404),
        ("GET", "/v1/items/it_" + "0" * 32 + "/restore", 404),
        ("GET", "/v1/items/x/restore", 404),
        ("GET", "/v1/models/nothing/at/all", 404),
        ("GET", "/v1/sessions/s/events?limit=0", 400),
        ("GET", "/v1/sessions/s/events?after_seq=x", 400),
        ("GET", "/v1/requests?limit=100000", 400),
    ],
)
def test_wrong_paths_have_the_error_object_too(ctx: Gateway, method: str, path: str, status: int) -> None:
    """404, 405 and wrong query arguments."""
    answer = ctx.ask(method, path)
    assert answer.status == status, answer.body
    assert answer.error["message"]


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"content-length: +5\r\n",
    ],
)
def test_a_request_whose_length_is_in_doubt_is_refused(ctx: Gateway, upstream: Upstream, framing: bytes) -> None:
    """Nobody may read it one way and the upstream another."""
    with ctx.connect() as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n" + framing + b"\r\n0\r\n\r\n")
        answer = parse(received(connection))
    assert answer.status == 400
    assert upstream.received == []
