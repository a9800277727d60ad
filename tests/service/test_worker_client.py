"""The gateway's view of the model worker, against a scripted one."""

from __future__ import annotations

import math
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import pytest

from ctxmem import chat
from ctxmem.errors import InvalidInput, ModelError, Unavailable
from ctxmem.ports import TokenScores
from service import errors
from service.worker.client import RemoteCounter, RemoteScorer, WorkerClient, affinity
from service.worker.wire import CountReply, CountRequest, Health, ScoreReply, ScoreRequest, pack

SCORES = TokenScores((0, 2), (2, 3), (1.5, 0.25))


def count(asked: CountRequest) -> CountReply:
    """One token a byte; a request costs 7 more."""
    sizes = [len(raw) for raw in asked.messages] or [len(text.encode()) for text in asked.texts]
    return CountReply("bytes", True, 99, [sum(sizes) + 7] if asked.request else sizes)


@dataclass
class Scripted:
    """A worker that does as it is told.

    Attributes:
        path: its socket.
        asked: paths and bodies that came.
        refusal: what every call is answered with, instead of an answer.
        body: what every call is answered with, instead of an answer.
        drop: whether each connection is closed after one answer, untold.
        delay: seconds before each answer.
    """

    path: Path
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    refusal: errors.Answer | None = None
    body: bytes | None = None
    drop: bool = False
    delay: float = 0.0

    def answer(self, path: str, body: bytes) -> bytes:
        self.asked.append((path, body))
        if path == "/count":
            return msgspec.msgpack.encode(count(msgspec.msgpack.decode(body, type=CountRequest)))
        if path == "/score":
            texts = msgspec.msgpack.decode(body, type=ScoreRequest).texts
            return msgspec.msgpack.encode(ScoreReply("random-1", 100.0, [pack(SCORES) for _ in texts]))
        return msgspec.json.encode(Health("ready", "random", scorer="random-1", rate=50.0))


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 32
    """Connections that wait to be accepted: past Python's five a Unix socket refuses, on a busy machine."""


@pytest.fixture
def worker() -> Iterator[Scripted]:
    """A scripted worker on a socket with a short path."""
    with tempfile.TemporaryDirectory() as folder:
        scripted = Scripted(Path(folder) / "w.sock")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                time.sleep(scripted.delay)
                content = scripted.body or scripted.answer(self.path, body)
                refusal = scripted.refusal
                self.send_response(refusal.status if refusal else 200)
                content = refusal.body if refusal else content
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = scripted.drop

            do_GET = do_POST  # noqa: N815 - named by http.server

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

            def address_string(self) -> str:
                return "unix"

        with _Server(str(scripted.path), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            yield scripted
            server.shutdown()
            thread.join()


@pytest.fixture
def client(worker: Scripted) -> Iterator[WorkerClient]:
    made = WorkerClient(worker.path)
    yield made
    made.close()


class TestRemoteCounter:
    def test_counts_are_the_workers(self, client: WorkerClient) -> None:
        """Texts, messages, the request, and who counted."""
        counter, message = RemoteCounter(client, "m"), chat.build("user", "hé")
        assert counter.texts(["hé", ""]) == [3, 0]
        assert counter.messages([message]) == [len(message.raw or b"")]
        assert counter.request([message], b"[]") == len(message.raw or b"") + 7
        assert (counter.name, counter.exact, counter.window) == ("bytes", True, 99)

    def test_what_was_counted_is_not_asked_again(self, client: WorkerClient, worker: Scripted) -> None:
        """Counters of one model share what is known, texts and messages."""
        message = chat.build("user", "hello")
        for _ in range(3):
            counter = RemoteCounter(client, "m")
            counter.texts(["a", "b"])
            counter.messages([message])
        assert [path for path, _ in worker.asked] == ["/count", "/count"]
        RemoteCounter(client, "other").texts(["a"])
        assert len(worker.asked) == 3

    def test_names_made_up_by_clients_cost_no_memory(self, client: WorkerClient) -> None:
        """Any number of model names may come in."""
        for number in range(200):
            RemoteCounter(client, f"model-{number}").texts(["a"])
        assert len(client._counts) <= 64

    def test_a_worker_that_is_away_is_stood_in_for(self, tmp_path: Path) -> None:
        """Counts are an upper estimate, and say so."""
        counter, message = RemoteCounter(WorkerClient(tmp_path / "none.sock"), "m"), chat.build("user", "hello there")
        assert counter.texts(["hello there"])[0] >= 2
        assert counter.messages([message])[0] > 2
        assert counter.request([message]) > counter.messages([message])[0]
        assert not counter.exact
        assert counter.window is None

    def test_a_counter_that_estimated_once_goes_on_estimating(self, client: WorkerClient, worker: Scripted) -> None:
        """All counts of a request are of one kind, even when the worker is back; the next request's are exact."""
        counter = RemoteCounter(client, "m")
        worker.body = b"\xc1"
        counter.texts(["abc"])
        worker.body = None
        assert not counter.exact
        assert counter.texts(["abc"]) != [3]
        assert RemoteCounter(client, "m").texts(["abc"]) == [3]

    def test_a_model_whose_tokenizer_is_missing_is_estimated(self, client: WorkerClient, worker: Scripted) -> None:
        """A worker without the tokenizer is no reason to refuse a request."""
        worker.refusal = errors.answer(ModelError("not installed"))
        assert not RemoteCounter(client, "m").exact

    def test_messages_that_the_template_refuses_are_the_callers_error(
        self, client: WorkerClient, worker: Scripted
    ) -> None:
        """The refusal comes through as what it was."""
        worker.refusal = errors.answer(InvalidInput("two user messages in a row", param="messages"))
        with pytest.raises(InvalidInput, match="in a row") as raised:
            RemoteCounter(client, "m").request([chat.build("user", "a")])
        assert raised.value.param == "messages"

    def test_half_a_character_is_counted(self, client: WorkerClient) -> None:
        """A lone surrogate in a text or message breaks nothing."""
        counter = RemoteCounter(client, "m")
        assert counter.texts(["a\ud800"]) == [4]
        assert counter.messages([chat.parse(b'{"role":"user","content":"\\ud800"}')])[0] > 0


class TestConnection:
    def test_a_stale_connection_is_opened_anew(self, client: WorkerClient, worker: Scripted) -> None:
        """A worker that closes idle connections, or was started again, costs no count."""
        worker.drop = True
        counter = RemoteCounter(client, "m")
        assert [counter.texts([text])[0] for text in ("a", "bb", "ccc")] == [1, 2, 3]
        assert counter.exact

    def test_a_worker_that_hangs_costs_its_timeout_once(self, worker: Scripted) -> None:
        """After one timeout the worker is left alone for a while."""
        client, worker.delay = WorkerClient(worker.path, timeout=0.05), 1.0
        with pytest.raises(Unavailable, match="out of reach"):
            client.count(CountRequest("m", texts=["a"]))
        with pytest.raises(Unavailable, match="just now"):
            client.count(CountRequest("m", texts=["a"]))

    def test_threads_have_their_own_connections(self, client: WorkerClient) -> None:
        """Many threads at once get each its own answer."""
        found: dict[int, list[int]] = {}

        def ask(size: int) -> None:
            found[size] = RemoteCounter(client, "m").texts(["x" * size] * 3)

        threads = [threading.Thread(target=ask, args=(size,)) for size in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {size: [size] * 3 for size in range(1, 9)}


class TestRemoteScorer:
    def test_scores_are_the_workers(self, client: WorkerClient) -> None:
        """Name, speed and scores come from the worker."""
        scorer = RemoteScorer(client)
        assert scorer.name == "random-1"
        assert scorer.seconds(["x" * 300]) == pytest.approx(100 / 50.0)
        assert scorer.score(["abc", "def"], deadline=1.0) == [SCORES, SCORES]
        assert scorer.seconds(["x" * 300]) == pytest.approx(100 / 100.0)

    def test_a_lone_surrogate_keeps_the_texts_length(self, client: WorkerClient, worker: Scripted) -> None:
        """Offsets of what is scored are offsets of what was given."""
        RemoteScorer(client).score(["a\ud83d\ude00b"])
        (text,) = msgspec.msgpack.decode(worker.asked[-1][1], type=ScoreRequest).texts
        assert len(text) == 4

    @pytest.mark.parametrize("error", [Unavailable("loading"), errors.Overloaded("busy")])
    def test_a_worker_that_cannot_score_now_is_unavailable(
        self, client: WorkerClient, worker: Scripted, error: Exception
    ) -> None:
        """Loading, overload and a missed deadline are the same to the caller."""
        worker.refusal = errors.answer(error)  # type: ignore[arg-type]
        with pytest.raises(Unavailable):
            RemoteScorer(client).score(["abc"])

    def test_a_worker_that_is_away_would_take_for_ever(self, tmp_path: Path) -> None:
        """So the policies take the model-free scorer."""
        scorer = RemoteScorer(WorkerClient(tmp_path / "none.sock"))
        assert scorer.seconds(["abc"]) == math.inf
        assert scorer.name == "unreached"
        with pytest.raises(Unavailable):
            scorer.score(["abc"], deadline=0.1)

    def test_an_answer_that_is_none_is_unavailable(self, client: WorkerClient, worker: Scripted) -> None:
        """Garbage from the socket is the worker's fault, never a crash here."""
        worker.body = b"\xc1"
        call: Callable[[], object]
        for call in (lambda: client.score(["a"]), lambda: client.count(CountRequest("m")), client.health):
            with pytest.raises(Unavailable, match="something else"):
                call()


def test_sessions_of_different_tenants_never_share_a_cache() -> None:
    """Clients choose session ids, so equal ids of two tenants must differ for the worker."""
    pairs = [("a", "s"), ("b", "s"), ("a", "t"), ("as", ""), ("", "as")]
    assert len({affinity(tenant, session) for tenant, session in pairs}) == len(pairs)


def test_the_client_loads_neither_torch_nor_a_tokenizer() -> None:
    """The gateway imports it and stays small."""
    program = (
        "import sys, service.worker.client\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'tiktoken', 'jinja2', 'numpy', 'starlette'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
