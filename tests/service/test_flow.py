"""Clients that leave, upstreams that fail, services that stop: nobody waits in vain, nothing acknowledged is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from service.upstream import breaker
from tests.service.conftest import Answer, Gateway, received, served, talk, wait_for
from tests.service.upstream import (
    Cut,
    Pause,
    Reply,
    Until,
    Upstream,
    chunk,
    completion,
    delta,
    events,
    streamed,
    whole,
)

HELLO = events(chunk(delta(role="assistant", content="Hel")), chunk(delta(content="lo")))
END = events(chunk(delta(finish="stop")), "[DONE]")


def _send(ctx: Gateway, body: dict[str, Any], **headers: str) -> Any:
    """A connection on which the request is under way."""
    sent = json.dumps(body).encode()
    named = {"host": "localhost", "authorization": f"Bearer {ctx.key}", "content-length": str(len(sent))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in named.items()]
    connection = ctx.connect()
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{''.join(lines)}\r\n"
    connection.sendall(head.encode() + sent)
    return connection


def _log(ctx: Gateway, session: str) -> list[dict[str, Any]]:
    answer = ctx.get(f"/v1/sessions/{session}/events")
    return answer.json["events"] if answer.status == 200 else []


def _status(ctx: Gateway, session: str) -> str:
    """What became of the session's only request."""
    (request,) = ctx.get(f"/v1/requests?session_id={session}").json["requests"]
    return request["status"]


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_byte_aborts_the_upstream(
    ctx: Gateway, upstream: Upstream, stream: bool, mode: str
) -> None:
    """Streamed or not, nobody generates for nobody."""
    never = threading.Event()
    upstream.answer = lambda request: Reply((), before=(Until(never),))
    connection = _send(ctx, talk("hi", stream=stream), x_ctxmem_mode=mode, x_ctxmem_session="left")
    assert wait_for(lambda: upstream.received)
    connection.close()
    assert upstream.last.gone.wait(2)
    if mode == "on":
        assert wait_for(lambda: _status(ctx, "left") == "failed")


def test_a_client_that_leaves_in_mid_stream_is_recorded_as_far_as_it_got(ctx: Gateway, upstream: Upstream) -> None:
    """The upstream is aborted at once; what was delivered is in the log, marked incomplete."""
    never = threading.Event()
    upstream.answer = lambda request: streamed(HELLO, Until(never), END)
    connection = _send(ctx, talk("hi", stream=True), x_ctxmem_session="left")
    assert b"lo" in _until(connection, b'"lo"')
    connection.close()
    assert upstream.last.gone.wait(2)
    assert wait_for(lambda: len(_log(ctx, "left")) == 2)
    last = _log(ctx, "left")[-1]
    assert (last["message"]["content"], last["complete"], _status(ctx, "left")) == ("Hello", False, "cut")


def test_an_upstream_that_cuts_its_stream_is_recorded_as_far_as_it_got(ctx: Gateway, upstream: Upstream) -> None:
    """The client sees a broken stream; the log has what came, marked incomplete."""
    upstream.answer = lambda request: streamed(HELLO, Cut())
    with _send(ctx, talk("hi", stream=True), x_ctxmem_session="cut") as connection:
        raw = received(connection)
    assert HELLO in _joined_pieces(raw)
    assert not raw.endswith(b"0\r\n\r\n")
    assert wait_for(lambda: len(_log(ctx, "cut")) == 2)
    last = _log(ctx, "cut")[-1]
    assert (last["message"]["content"], last["complete"], _status(ctx, "cut")) == ("Hello", False, "cut")


def test_an_upstream_that_falls_silent_is_a_cut(ctx: Gateway, upstream: Upstream) -> None:
    """After the idle timeout between two pieces the stream is broken off."""
    upstream.answer = lambda request: streamed(HELLO, Pause(20), END)
    with _send(ctx, talk("hi", stream=True), x_ctxmem_session="silent") as connection:
        raw = received(connection)
    assert not raw.endswith(b"0\r\n\r\n")
    assert upstream.last.gone.wait(2)
    assert wait_for(lambda: len(_log(ctx, "silent")) == 2)


def test_pieces_pass_at_once_and_the_end_waits_for_the_record(ctx: Gateway, upstream: Upstream) -> None:
    """The client reads a piece while the next is not written yet; when it sees the end, the answer is in the log."""
    more = threading.Event()
    upstream.answer = lambda request: streamed(HELLO, Until(more), END)
    connection = _send(ctx, talk("hi", stream=True), x_ctxmem_session="flow")
    assert b'"Hel"' in _until(connection, b'"lo"')
    assert len(_log(ctx, "flow")) == 1
    more.set()
    _until(connection, b"[DONE]")
    last = _log(ctx, "flow")[-1]
    assert (last["message"], last["complete"]) == ({"role": "assistant", "content": "Hello"}, True)
    connection.close()


def test_the_end_mark_is_passed_on_before_the_upstream_closes(ctx: Gateway, upstream: Upstream) -> None:
    """An upstream that lingers after `[DONE]` does not keep the client waiting."""
    linger = threading.Event()
    upstream.answer = lambda request: streamed(HELLO + END, Until(linger))
    connection = _send(ctx, talk("hi", stream=True))
    assert b"[DONE]" in _until(connection, b"[DONE]\n\n")
    assert not linger.is_set()
    linger.set()
    connection.close()


def test_an_answer_is_durable_before_it_is_sent(ctx: Gateway, upstream: Upstream) -> None:
    """Whoever has the answer finds it in the log."""
    upstream.answer = lambda request: whole(completion("Kept."))
    answer = ctx.chat(talk("hi"), x_ctxmem_session="kept")
    assert answer.status == 200
    logged = _log(ctx, "kept")
    assert [event["message"].get("content") for event in logged] == ["hi", "Kept."]
    assert [event["origin"] for event in logged] == ["client", "upstream"]


def test_a_body_the_upstream_cuts_is_a_bad_gateway(ctx: Gateway, upstream: Upstream) -> None:
    """Nothing was sent yet, so the client gets a clean error instead of half an answer."""
    upstream.answer = lambda request: Reply((b'{"id":', Cut()), length=100)
    answer = ctx.chat(talk("hi"), x_ctxmem_session="half")
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
    assert _status(ctx, "half") == "failed"
    assert ctx.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").status == 200


def test_an_upstream_that_does_not_answer_in_time_is_a_timeout(ctx: Gateway, upstream: Upstream) -> None:
    """Its connection is closed; the message the client sent is in the log."""
    upstream.answer = lambda request: Reply((), before=(Pause(20),))
    answer = ctx.chat(talk("hi"), x_ctxmem_session="slow")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert upstream.last.gone.wait(2)
    assert len(_log(ctx, "slow")) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_is_one_call(ctx: Gateway, upstream: Upstream, status: int) -> None:
    """Retrying is the client's business."""
    upstream.answer = lambda request: whole({"error": {"message": "no"}}, status)
    assert ctx.chat(talk("hi")).status == status
    assert len(upstream.received) == 1


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose upstreams cannot be reached."""
    ups = (
        UpstreamSettings(name="refused", base_url="http://127.0.0.1:9/v1", models=("m",)),
        UpstreamSettings(name="nowhere", base_url="http://nowhere.invalid/v1", models=("n",)),
    )
    with served(Settings(data_dir=tmp_path, model="", port=0, upstreams=ups)) as running:
        yield running


def test_an_upstream_that_is_down_is_left_alone_after_a_while(dead: Gateway) -> None:
    """502 at first, then 503 with the time to try again; one upstream's trouble is not another's."""
    answers = [dead.chat(talk("hi")) for _ in range(breaker.LEAST + 1)]
    assert [answer.status for answer in answers] == [502] * breaker.LEAST + [503]
    assert answers[0].error["code"] == "upstream_unreachable"
    assert answers[-1].error["code"] == "upstream_paused"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= breaker.PAUSE_S
    assert dead.chat({**talk("hi"), "model": "n"}).error["code"] == "upstream_unreachable"
    assert dead.get("/livez").status == 200


def test_a_stale_kept_connection_is_not_the_clients_problem(ctx: Gateway, upstream: Upstream) -> None:
    """Requests in a row reuse a connection, and a breaker success follows each."""
    upstream.answer = lambda request: whole(completion())
    assert [ctx.chat(talk(str(i))).status for i in range(3)] == [200] * 3


@pytest.fixture
def narrow(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway that serves two requests at once."""
    ups = (UpstreamSettings(name="up", base_url=upstream.url),)
    with served(Settings(data_dir=tmp_path, model="", port=0, upstreams=ups, max_inflight=2)) as running:
        yield running


def test_too_many_requests_at_once_are_told_to_come_back(narrow: Gateway, upstream: Upstream) -> None:
    """503 with the headers SDKs obey, and room again when others are done."""
    go = threading.Event()
    upstream.answer = lambda request: Reply(whole(completion()).pieces, before=(Until(go),))
    first, second = _send(narrow, talk("a")), _send(narrow, talk("b"))
    assert wait_for(lambda: len(upstream.received) == 2)
    refused = narrow.chat(talk("c"))
    assert (refused.status, refused.error["code"], refused.headers["x-should-retry"]) == (503, "overloaded", "true")
    assert int(refused.headers["retry-after"]) >= 1
    go.set()
    for connection in (first, second):
        _until(connection, b"Hello there.")
        connection.close()
    assert wait_for(lambda: b"ctxmem_inflight 0.0" in narrow.get("/metrics").body)
    assert narrow.chat(talk("d")).status == 200


def test_requests_end_before_the_service_does(tmp_path: Path, upstream: Upstream) -> None:
    """A stream in flight at shutdown is finished and recorded."""
    more = threading.Event()
    upstream.answer = lambda request: streamed(HELLO, Until(more), END)
    ups = (UpstreamSettings(name="up", base_url=upstream.url),)
    settings = Settings(data_dir=tmp_path, model="", port=0, upstreams=ups)
    with served(settings) as running:
        connection = _send(running, talk("hi", stream=True), x_ctxmem_session="drain")
        _until(connection, b'"lo"')
        stopper = threading.Timer(0.2, more.set)
        stopper.start()
    assert b"[DONE]" in _until(connection, b"[DONE]")
    connection.close()
    with served(settings) as again:
        again.key = running.key
        assert _log(again, "drain")[-1]["message"]["content"] == "Hello"


def test_two_turns_of_one_session_at_once_are_both_kept(ctx: Gateway, upstream: Upstream) -> None:
    """Both are answered, both are in the log."""
    upstream.answer = lambda request: whole(completion("ok " + request.json["messages"][-1]["content"]))
    answers: list[Answer] = []
    asked = [talk("same start", "yes", f"turn {i}") for i in range(4)]
    threads = [
        threading.Thread(target=lambda body=body: answers.append(ctx.chat(body, x_ctxmem_session="twice")))
        for body in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 4
    said = {event["message"]["content"] for event in _log(ctx, "twice")}
    assert {f"turn {i}" for i in range(4)} | {f"ok turn {i}" for i in range(4)} <= said


def test_many_aborts_leave_nothing_behind(ctx: Gateway, upstream: Upstream) -> None:
    """The gateway serves no request that nobody waits for."""
    never = threading.Event()
    upstream.answer = lambda request: streamed(HELLO, Until(never))
    for i in range(50):
        connection = _send(ctx, talk(f"hi {i}", stream=True))
        _until(connection, b"Hel")
        connection.close()
    assert wait_for(lambda: all(one.gone.is_set() for one in upstream.received))
    assert wait_for(lambda: b"ctxmem_inflight 0.0" in ctx.get("/metrics").body)


def _until(connection: Any, mark: bytes) -> bytes:
    """What arrives up to a mark."""
    raw = b""
    while mark not in raw:
        piece = connection.recv(65536)
        if not piece:
            break
        raw += piece
    return raw


def _joined_pieces(raw: bytes) -> bytes:
    """The pieces of a chunked body that may have been cut off."""
    body, joined = raw.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        joined, body = joined + rest[:length], rest[length + 2 :]
    return joined
