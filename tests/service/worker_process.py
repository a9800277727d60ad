"""A real model worker in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai

from ctxmem.errors import Unavailable
from service.settings import Settings
from service.worker.channel import UnixConnection
from service.worker.client import WorkerClient
from service.worker.library import RemoteLibrary
from service.worker.wire import Health
from tests.service.conftest import Gateway, served

LOADING = 240.0
"""Seconds that a worker gets to load its model, converting it included; many, for the machine may be busy."""


@dataclass
class Worker:
    """A worker process."""

    socket: Path
    process: subprocess.Popen[bytes]
    client: WorkerClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = WorkerClient(self.socket, timeout=30)

    def until(self, state: Callable[[Health], bool]) -> Health:
        """Its health, once it is so."""
        end = time.monotonic() + LOADING
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(Unavailable), closing(WorkerClient(self.socket)) as asking:
                health = asking.health()
                if state(health):
                    return health
            time.sleep(0.02)
        raise AssertionError(f"the worker did not get there; exit code {self.process.poll()}")

    @contextmanager
    def openai(self) -> Iterator[openai.OpenAI]:
        """OpenAI's client on this worker."""
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        with (
            httpx2.Client(transport=transport) as http_client,
            openai.OpenAI(base_url="http://worker/v1", api_key="none", http_client=http_client, max_retries=0) as made,
        ):
            yield made

    @contextmanager
    def posted(self, body: bytes | dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """The response to a raw chat request; the connection is cut at the end."""
        connection = UnixConnection(str(self.socket), timeout=30)
        try:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", "/v1/chat/completions", sent)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()


@contextmanager
def running(cache: Path) -> Iterator[Worker]:
    """A worker on a socket of its own; it is ended by its id."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "w.sock"
        argv = [sys.executable, "-m", "service.worker", "--socket", str(socket), "--cache-dir", str(cache)]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        made = Worker(socket, process)
        try:
            yield made
        finally:
            made.client.close()
            process.kill()
            process.wait()


IN_MEMORY = 50
"""Vectors of a namespace before most go to the disk."""


@dataclass
class Work:
    """A model worker that can be killed and started again."""

    folder: Path
    redis_url: str | None = None
    device: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        argv = [sys.executable, "-m", "service.worker", "--socket", str(self.folder / "worker.sock")]
        argv += ["--vectors", str(self.folder / "vectors"), "--vectors-in-memory", str(IN_MEMORY)]
        argv += ["--vectors-device", self.device]
        environment = os.environ | {"CTXMEM_DATABASE_URL": f"sqlite:///{self.folder}/ctxmem.db"}
        environment |= {"CTXMEM_REDIS_URL": self.redis_url} if self.redis_url else {}
        self.process = subprocess.Popen(argv, env=environment)
        library, end = RemoteLibrary(self.folder / "worker.sock"), time.monotonic() + LOADING
        while time.monotonic() < end:
            with suppress(Unavailable):
                library.embed(["warm"])
                break
            time.sleep(0.2)
        library.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def beside_worker(settings: Settings) -> Iterator[tuple[Gateway, Work]]:
    """A gateway, and a worker on its socket and its database."""
    work = Work(settings.data_dir, settings.redis_url, settings.vectors_device)
    with served(settings) as running:
        work.start()
        try:
            yield running, work
        finally:
            work.kill()
