"""The real gateway in front of a scripted upstream, over real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn

from service import gateway
from service.settings import Settings
from service.settings import Upstream as UpstreamSettings
from tests.service.upstream import Upstream


@dataclass
class Answer:
    """A response read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object; fails when the body is none."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@dataclass
class Gateway:
    """A running gateway, asked over plain sockets. Each one has a tenant of its own unless told otherwise."""

    port: int
    app: Any = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def ask(self, method: str, path: str, body: Any = b"", **headers: str) -> Answer:
        """One request, one answer."""
        sent = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        named = {"authorization": f"Bearer {self.key}", "content-length": str(len(sent))}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
        lines += [f"{name}: {value}" for name, value in named.items() if value]
        with self.connect() as connection:
            # A server that refuses early may close before it has read all: its answer still counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + sent)
            return parse(received(connection))

    def chat(self, body: Any = None, **headers: str) -> Answer:
        """`POST /v1/chat/completions`."""
        return self.ask("POST", "/v1/chat/completions", talk() if body is None else body, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def client(self, **options: Any) -> openai.OpenAI:
        """The official client, without retries."""
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, **options)


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    """A request that says the texts, user and assistant in turns."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts or ("Hello",))]
    return {"model": "m", "messages": said, **more}


def received(connection: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def parse(raw: bytes) -> Answer:
    """An HTTP response of one piece, chunked or not."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return Answer(int(status.split(" ")[1]), headers, body)


def _joined(chunked: bytes) -> bytes:
    body = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        body, chunked = body + rest[:length], rest[length + 2 :]
    return body


def wait_for(condition: Any, seconds: float = 5.0) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[Gateway]:
    """The app under uvicorn in a thread."""
    config = gateway.config(settings)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert wait_for(lambda: server.started or not thread.is_alive(), 20) and server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Gateway(port, config.app)
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder of the shared gateway."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_gateway(folder: Path, shared_upstream: Upstream) -> Iterator[Gateway]:
    up = UpstreamSettings(name="up", base_url=shared_upstream.url, idle_timeout_s=1.0, first_byte_timeout_s=2.0)
    with served(Settings(data_dir=folder, model="", port=0, upstreams=(up,), body_timeout_s=1.0)) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The upstream, its script and memory fresh."""
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture
def ctx(shared_gateway: Gateway, upstream: Upstream) -> Gateway:
    """The gateway, in a tenant of this test's own."""
    del upstream
    return Gateway(shared_gateway.port, shared_gateway.app)
