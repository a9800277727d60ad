"""The model worker behind its Unix socket: an upstream like any other, and never a reason to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxmem.testing import WordCounter
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.conftest import Gateway, served, talk, wait_for
from tests.service.upstream import Received, Reply, Upstream, completion, whole, words


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Upstream]:
    """A scripted worker: it chats, and knows nothing of counting."""
    with Upstream(tmp_path / "worker.sock") as running:
        running.answer = _chats
        yield running


def _chats(request: Received) -> Reply:
    if not request.path.endswith("/chat/completions"):
        return whole(
            {"error": {"message": "broken", "type": "server_error", "param": None, "code": "unavailable"}}, 503
        )
    stream = request.json.get("stream")
    return (
        Reply((words("from ", "here"),), headers=(("content-type", "text/event-stream"),))
        if stream
        else whole(completion("from here"))
    )


@pytest.fixture
def both(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway with the worker and another upstream."""
    ups = (UpstreamSettings(name="up", base_url=upstream.url, models=("m",)),)
    with served(Settings(data_dir=tmp_path, port=0, upstreams=ups)) as running:
        yield running


@pytest.mark.parametrize("model", ["smollm2", "smollm2-135m-instruct", "local/smollm2"])
def test_the_local_model_answers_over_its_socket(
    both: Gateway, worker: Upstream, upstream: Upstream, model: str
) -> None:
    """By every name it has, streamed or not; nothing goes anywhere else."""
    assert both.chat({**talk("hi"), "model": model}).json["choices"][0]["message"]["content"] == "from here"
    assert b"here" in both.chat({**talk("hi"), "model": model, "stream": True}).body
    assert upstream.received == []
    chats = [one for one in worker.received if one.path == "/v1/chat/completions"]
    assert len(chats) == 2
    assert "authorization" not in chats[0].headers


def test_the_worker_can_tell_the_sessions_of_tenants_apart(both: Gateway, worker: Upstream) -> None:
    """It learns a name of each session that tells neither the tenant nor the session; others learn none."""
    other = Gateway(both.port, both.app)
    for ctx, session in ((both, "s"), (both, "s"), (both, "t"), (other, "s")):
        ctx.chat({**talk("hi"), "model": "smollm2"}, x_ctxmem_session=session)
    chats = [one for one in worker.received if one.path == "/v1/chat/completions"]
    names = [one.headers["x-ctxmem-session"] for one in chats]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_a_worker_that_cannot_count_makes_it_an_estimate(both: Gateway, worker: Upstream, upstream: Upstream) -> None:
    """The receipt says so, and the request goes on."""
    answer = both.chat(talk("hi"))
    assert answer.status == 200
    assert both.get(f"/v1/requests/{answer.headers['x-ctxmem-request-id']}").json["exact"] is False


def test_without_a_worker_everything_but_the_local_model_is_served(both: Gateway, upstream: Upstream) -> None:
    """Ready, degraded, and plain about it."""
    refused = both.chat({**talk("hi"), "model": "smollm2"})
    assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    assert both.chat(talk("hi")).status == 200
    ready = both.get("/readyz")
    assert (ready.status, ready.json["status"], ready.json["worker"]) == (200, "degraded", "down")
    shortened = both.post("/v1/compress", {"text": "It was, as it was, what it was. Plutonium in Ohio.", "ratio": 0.6})
    assert shortened.json["tokens_after"] < shortened.json["tokens_before"]


def test_the_local_model_is_listed(both: Gateway) -> None:
    """Beside those of other upstreams."""
    names = {model["id"]: model["owned_by"] for model in both.get("/v1/models").json["data"]}
    assert names == {"smollm2-135m-instruct": "local", "smollm2": "local", "m": "up"}


def test_a_client_that_leaves_while_its_context_is_built_reaches_no_upstream(
    both: Gateway, worker: Upstream, upstream: Upstream
) -> None:
    """What was built is closed as failed once it is there."""
    go = threading.Event()

    def slow(model: str) -> Any:
        go.wait(10)
        return WordCounter()

    object.__setattr__(both.app.service.manager.engine, "counters", slow)
    connection = both.connect()
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {both.key}\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    time.sleep(0.1)
    connection.close()
    assert wait_for(lambda: b"ctxmem_client_disconnect_total 1.0" in both.get("/metrics").body)
    go.set()
    assert wait_for(lambda: [one["status"] for one in both.get("/v1/requests").json["requests"]] == ["failed"])
    assert upstream.received == []
