"""The process behind `ctxmem serve`: starts Valkey, the model worker and the gateway, and keeps them alive.

It imports neither the web framework nor torch, does no request's work, and holds no state worth keeping: what it
starts finds its data in the data folder. Exit codes: 0 after a signal and a clean drain, 1 when the service cannot
start, 2 for wrong settings.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from msgspec.structs import replace

from ctxmem import __version__
from ctxmem.errors import ConfigError, CtxmemError
from ctxmem.stores.valkey import EmbeddedValkey
from service import home
from service.auth import first_key
from service.children import Child, Runnable, Watch
from service.convert import is_due
from service.settings import Settings, environment
from service.worker.client import WorkerClient

TOLD = ("host", "port", "data_dir", "cache_dir", "worker_socket", "model", "log_level")
"""Settings that options can change, which the gateway is told by environment; it reads the others where we did."""
TICK = 0.2
"""Seconds between two looks at the children."""
GATEWAY_GRACE = 130.0
"""Seconds that the gateway gets to finish its streams; it ends them itself at 120."""
WORKER_GRACE = 10.0
FALSE_STARTS = 3
"""Deaths before the first readiness after which a child is given up on."""
PATIENCE = 120.0
"""Seconds to wait for the model worker before the service is called ready without it."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who listens on all addresses is reached here on this one


@dataclass(slots=True)
class Supervisor:
    """Watches the children of one service from start to drain.

    Attributes:
        settings: of the service, its port settled.
        children: in the order they start; they stop in the reverse of it. The gateway is last.
        key: what clients authenticate with; None when the keys are in a file.
        as_json: announce the address as one line of JSON.
        parent: process id of the parent to end with; None to outlive it.
    """

    settings: Settings
    children: Sequence[Runnable]
    key: str | None
    as_json: bool = False
    parent: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        """What clients call `OPENAI_BASE_URL`."""
        host = _EVERYWHERE.get(self.settings.host, self.settings.host)
        return f"http://[{host}]:{self.settings.port}/v1" if ":" in host else f"http://{host}:{self.settings.port}/v1"

    def run(self) -> int:
        """Serve until a signal comes; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        watches = {child.name: Watch(child, _tell) for child in self.children}
        try:
            self._prepare_model()
            return self._serve(watches)
        finally:
            home.withdraw(self.settings.data_dir)
            for child in reversed(self.children):
                child.stop()

    def _prepare_model(self) -> None:
        """Convert the packaged model on the first start, and wait for it."""
        model, cache_dir = self.settings.model, self.settings.cache_dir
        if not is_due(model, cache_dir):
            return
        conversion = Child("model conversion", (sys.executable, "-m", "service.convert", model, str(cache_dir)))
        conversion.start()
        while conversion.running() and not self._stop.wait(TICK):
            pass
        conversion.stop()

    def _serve(self, watches: dict[str, Watch]) -> int:
        started, ready = time.monotonic(), False
        while not self._stop.wait(TICK) and self.parent in (None, os.getppid()):
            for watch in watches.values():
                watch.tend()
            if ready:
                continue
            if watches["gateway"].deaths >= FALSE_STARTS:
                _tell("the gateway does not start; see its messages above")
                return 1
            waited = time.monotonic() - started
            if self._gateway_ready() and self._worker_settled(watches.get("model worker"), waited):
                ready = True
                self._announce()
        return 0

    def _gateway_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.settings.host, self.settings.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _worker_settled(self, watch: Watch | None, waited: float) -> bool:
        """Whether the model worker has its model, or is not worth waiting for any longer."""
        if watch is None:
            return True
        if watch.deaths >= FALSE_STARTS or waited > PATIENCE:
            _tell("the model worker does not start; going on without the local model")
            return True
        try:
            health = WorkerClient(self.settings.worker_socket).health()
        except CtxmemError:
            return False
        if health.state == "failed":
            _tell(f"going on without the local model: {health.error}")
        return health.state != "loading"

    def _announce(self) -> None:
        """Say once, on standard output, how the service is used."""
        home.announce(self.settings.data_dir, self.base_url)
        if self.as_json:
            lines = [json.dumps({"base_url": self.base_url, "key": self.key, "pid": os.getpid()})]
        else:
            lines = [f"ctxmem {__version__} is ready at {self.base_url}", f"export OPENAI_BASE_URL={self.base_url}"]
            if self.key is not None:
                lines.append(f"export OPENAI_API_KEY={self.key}")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """Drain on the first signal; end the children at once on the second."""
        if not self._stop.is_set():
            _tell("draining; a second signal ends it at once")
            self._stop.set()
            return
        for child in self.children:
            child.kill()


def main(settings: Settings, *, as_json: bool = False, parent: int | None = None) -> int:
    """Run the service until a signal comes; returns the exit code.

    Args:
        settings: of the service.
        as_json: announce the address as one line of JSON.
        parent: process id of the parent to end with; None to outlive it.

    Raises:
        ConfigError: the data folder or the port is in use, or a folder cannot be written to.
    """
    data_dir = home.open_folder(settings.data_dir)
    home.open_folder(settings.cache_dir)
    with home.locked(data_dir):
        settings = replace(settings, port=_free_port(settings.host, settings.port))
        key = first_key(data_dir) if settings.keys_file is None else None
        return Supervisor(settings, _children(settings), key, as_json, parent).run()


def _children(settings: Settings) -> list[Runnable]:
    """What makes up the service, in starting order."""
    told = {name: getattr(settings, name) for name in TOLD}
    children: list[Runnable] = []
    redis_url = settings.redis_url
    if redis_url is None:
        valkey = EmbeddedValkey(settings.data_dir)
        children.append(valkey)
        told["redis_url"] = redis_url = valkey.url
    if settings.model:
        children.append(_worker(settings, redis_url))
    gateway = (sys.executable, "-m", "service.gateway")
    children.append(Child("gateway", gateway, environment=environment(told), grace=GATEWAY_GRACE))
    return children


def _worker(settings: Settings, redis_url: str) -> Child:
    argv = [sys.executable, "-m", "service.worker", "--socket", str(settings.worker_socket)]
    argv += ["--model", settings.model, "--cache-dir", str(settings.cache_dir)]
    argv += ["--adapter", settings.adapter, "--embedder", settings.embedder]
    argv += ["--vectors", str(settings.data_dir / "vectors"), "--vectors-in-memory", str(settings.vectors_in_memory)]
    argv += ["--vectors-device", settings.vectors_device]
    argv += ["--vectors-device-bytes", str(settings.vectors_device_bytes)]
    told = environment({"database_url": settings.database_url, "redis_url": redis_url})
    return Child("model worker", argv, environment=told, grace=WORKER_GRACE)


def _free_port(host: str, port: int) -> int:
    """The port to listen on, 0 settled to a free one.

    Raises:
        ConfigError: it is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def _tell(line: str) -> None:
    sys.stderr.write(f"ctxmem: {line}\n")
    sys.stderr.flush()
