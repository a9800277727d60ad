"""What happens when parts of the running service are killed, stopped, emptied or run out of room."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from bench.client import Answer, Client, spliced
from bench.crash import back, events, kill, ordeal
from bench.servers import Server, scripted_upstream
from bench.stack import Part, Stack, stack
from bench.upstream import MODEL
from ctxmem import chat

LONG_TEXT = " ".join(
    f"The {n}th shipment left the harbour at {n % 24} o'clock with {n * 7} crates on board." for n in range(150)
)

SEEDS: dict[Part, int] = {"gateway": 1, "valkey": 2}


@contextmanager
def running(folder: Path, *, model: str = "") -> Iterator[tuple[Stack, Server]]:
    """The service over a scripted upstream."""
    with ExitStack() as parts:
        upstream = parts.enter_context(scripted_upstream(folder))
        service = stack(folder, [upstream], model=model)
        parts.enter_context(service.server)
        yield service, upstream


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Server]]:
    """One service for the tests that leave it as they found it."""
    with running(tmp_path_factory.mktemp("faults")) as made:
        yield made


def client(service: Stack) -> Client:
    """A client that waits long enough for any one request, and no longer."""
    return Client(service.root, service.headers, timeout_s=30.0)


def alive(service: Stack, part: Part) -> int:
    """The part's pid, once it runs."""
    assert wait_for(lambda: service.pid(part) is not None)
    pid = service.pid(part)
    assert pid is not None
    return pid


def said(role: str, text: str, **more: object) -> bytes:
    """One message's JSON."""
    return chat.dump({"role": role, "content": text, **more})


def tool_turn(number: int) -> list[bytes]:
    """A tool call with a long answer, which is shortened when it arrives."""
    call = {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": "search", "arguments": f'{{"n":{number}}}'},
    }
    result = said("tool", f"Report {number}. {LONG_TEXT}", tool_call_id=f"call_{number}")
    return [said("assistant", "Reading.", tool_calls=[call]), result]


def ask(service: Stack, messages: list[bytes], session: str) -> Answer:
    """One chat request."""
    return client(service).post(
        "/v1/chat/completions", spliced({"model": MODEL}, messages), {"x-ctxmem-session": session}
    )


def last_sent(upstream: Server) -> list[object]:
    """The messages of the newest request that reached the upstream."""
    bodies = Client(upstream.url.removesuffix("/v1")).get("/v1/seen").json()["data"]
    return list(json.loads(bodies[-1])["messages"])


class TestKilled:
    """`kill -9` at random moments under load."""

    @pytest.mark.parametrize("part", ["gateway", "valkey"])
    def test_no_acknowledged_event_is_lost(self, pair: tuple[Stack, Server], part: Part) -> None:
        """Every acknowledged message is in the log once, and no answer was an error of ours."""
        verdict, refused = ordeal(pair[0], [part], rounds=3, seed=SEEDS[part])
        assert verdict.acknowledged > 20
        assert verdict.clean, verdict
        assert not refused

    @pytest.mark.slow
    @pytest.mark.parametrize("part", ["gateway", "valkey"])
    def test_no_acknowledged_event_is_lost_in_fifty_kills(self, pair: tuple[Stack, Server], part: Part) -> None:
        """The same, fifty times."""
        verdict, refused = ordeal(pair[0], [part], rounds=50, seed=50 + SEEDS[part])
        assert verdict.clean, verdict
        assert not refused

    @pytest.mark.slow
    @pytest.mark.model
    def test_no_acknowledged_event_is_lost_when_the_model_worker_dies(self, tmp_path: Path) -> None:
        """Fifty kills of the model worker."""
        with running(tmp_path, model="smollm2") as (service, _):
            verdict, refused = ordeal(service, ["worker"], rounds=50)
        assert verdict.clean, verdict
        assert not refused


def flushed(service: Stack) -> None:
    """Everything in Valkey is gone."""
    with valkey(service) as server:
        server.flushall()


def killed(service: Stack) -> None:
    """Valkey is killed."""
    assert kill(service, "valkey")


def hung(service: Stack) -> None:
    """Valkey does not answer any more."""
    os.kill(alive(service, "valkey"), signal.SIGSTOP)


def restarted(service: Stack) -> None:
    """The gateway has lost its memory, and Valkey too."""
    flushed(service)
    assert kill(service, "gateway")
    assert back(service, "gateway")


@contextmanager
def valkey(service: Stack) -> Iterator[redis.Redis]:
    """A connection to the embedded server."""
    socket = next(path for path in service.folder.rglob("*.sock") if "worker" not in path.name)
    server = redis.Redis(unix_socket_path=str(socket))
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("trouble", [flushed, killed, hung, restarted])
def test_the_prefix_survives(pair: tuple[Stack, Server], trouble: Callable[[Stack], None]) -> None:
    """What was sent before is sent again byte for byte, whatever became of the caches: the ledger is in SQL."""
    service, upstream = pair
    session = f"prefix-{trouble.__name__}"
    history = [said("system", "You read reports."), said("user", "Read the reports."), *tool_turn(1)]
    assert ask(service, history, session).status == 200
    before = last_sent(upstream)
    trouble(service)
    try:
        answer = ask(service, [*history, *tool_turn(2)], session)
    finally:
        if trouble is hung:
            os.kill(alive(service, "valkey"), signal.SIGCONT)
    assert answer.status == 200
    assert not answer.headers["x-ctxmem-action"].startswith("bypass")
    assert len(json.dumps(before)) < len(LONG_TEXT), "nothing was shortened on arrival, so nothing is tested"
    assert last_sent(upstream)[: len(before)] == before
    assert back(service, "valkey")


def test_a_turn_sent_again_because_its_answer_was_lost_is_one_turn(pair: tuple[Stack, Server]) -> None:
    """The same answer to the same question is the same event, and the conversation goes on from it."""
    service, _ = pair
    question = [said("user", "Where were we?")]
    answers = [ask(service, question, "again").json()["choices"][0]["message"]["content"] for _ in range(2)]
    history = [*question, said("assistant", answers[0]), said("user", "Go on.")]
    assert ask(service, history, "again").status == 200
    logged = [event["message"]["content"] for event in events(client(service), "again")]
    assert logged[:3] == ["Where were we?", answers[0], "Go on."]
    assert len(logged) == 4


def test_two_concurrent_turns_of_one_session_are_both_kept(pair: tuple[Stack, Server]) -> None:
    """Both are answered, and both are in the log once."""
    service, _ = pair
    start = [said("user", "Hello.")]
    first = ask(service, start, "concurrent").json()["choices"][0]["message"]["content"]
    history = [*start, said("assistant", first)]
    answers: list[Answer] = []
    turns = [
        threading.Thread(
            target=lambda n=n: answers.append(ask(service, [*history, said("user", f"Turn {n}.")], "concurrent"))
        )
        for n in range(6)
    ]
    for turn in turns:
        turn.start()
    for turn in turns:
        turn.join()
    assert [answer.status for answer in answers] == [200] * 6
    logged = [event["message"]["content"] for event in events(client(service), "concurrent")]
    assert sorted(text for text in logged if text.startswith("Turn")) == [f"Turn {n}." for n in range(6)]


def test_without_room_on_the_disk_requests_pass_and_memory_comes_back(tmp_path: Path) -> None:
    """Memory is off while nothing can be written, `/readyz` says so, and it is on again once there is room."""
    with running(tmp_path) as (service, _):
        assert ask(service, [said("user", "Before.")], "room").status == 200
        gateway = alive(service, "gateway")
        unlimited = resource.prlimit(gateway, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        full = ask(service, [said("user", "While full.")], "full")
        append = client(service).post("/v1/sessions/full/events", spliced({}, [said("user", "Kept?")]))
        ready = client(service).get("/readyz")
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, unlimited)
        after = wait_for(
            lambda: not ask(service, [said("user", "After.")], "after").headers["x-ctxmem-action"].startswith("bypass")
        )
        kept = [event["message"]["content"] for event in events(client(service), "room")]
    assert full.status == 200
    assert full.headers["x-ctxmem-action"].startswith("bypass")
    assert append.status in (503, 507)
    assert ready.status == 503
    assert after
    assert kept[0] == "Before."


@pytest.mark.model
def test_a_dead_model_worker_leaves_an_estimate(tmp_path: Path) -> None:
    """Requests go on while the worker is down, and the receipt says that its counts are estimates."""
    with running(tmp_path, model="smollm2") as (service, _):
        os.kill(alive(service, "worker"), signal.SIGKILL)
        down = ask(service, [said("user", "Hello.")], "down")
        receipt = client(service).get(f"/v1/requests/{down.headers['x-ctxmem-request-id']}").json()
        assert back(service, "worker")
    assert down.status == 200
    assert receipt["exact"] is False


def test_sigterm_lets_a_stream_finish(tmp_path: Path) -> None:
    """Every event and the end of the stream arrive, new requests are refused, and the exit status is 0."""
    with running(tmp_path) as (service, _), ExitStack() as parts:
        connection = parts.enter_context(closing(HTTPConnection(urlsplit(service.root).netloc, timeout=30)))
        wire = {"model": MODEL, "stream": True, "max_tokens": 400}
        headers = {**service.headers, "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", spliced(wire, [said("user", "Count.")]), headers)
        answer = connection.getresponse()
        begun = answer.read(2000)
        statuses: list[int | None] = []
        stopping = threading.Thread(target=lambda: statuses.append(service.server.stop()))
        stopping.start()
        text = begun + answer.read()
        stopping.join()
    assert text.count(b'" word') == 400
    assert text.rstrip().endswith(b"data: [DONE]")
    assert statuses == [0]


def wait_for(reached: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    """Ask again until it is so, or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if reached():
            return True
        time.sleep(0.1)
    return False
