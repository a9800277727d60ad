"""Servers that benches and fault tests start: on free loopback ports, each in its own process group, ended by pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from bench.harness import ROOT


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """One server process and what it started, as a context manager.

    Attributes:
        name: what tables and errors call it.
        argv: program and arguments.
        url: base URL up to and with `/v1`.
        ready: URL that answers 200 once it serves.
        log: file for its output.
        environment: variables besides the usual ones.
        patience_s: seconds it may take to serve.
        seconds: how long it took.
    """

    name: str
    argv: Sequence[str]
    url: str
    ready: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 120.0
    seconds: float = 0.0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            RuntimeError: it ended or did not serve in time; with the end of its log.
        """
        begin = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.argv),
                env=plain_environment(self.environment),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not answers(self.ready):
            if self._process.poll() is not None or time.monotonic() - begin > self.patience_s:
                self.stop()
                raise RuntimeError(f"{self.name} does not serve; its log ends:\n{self.tail()}")
            time.sleep(0.02)
        self.seconds = time.monotonic() - begin

    def stop(self, grace_s: float = 15.0) -> int | None:
        """SIGTERM, then SIGKILL to its group. Returns the exit status."""
        if self._process is None:
            return None
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def tail(self, characters: int = 2000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


def plain_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without ctxmem's settings and proxies, and `extra`."""
    skip = ("CTXMEM_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_")
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(skip)}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Whether a GET gives a 2xx now."""
    try:
        with urlopen(url, timeout=timeout_s) as answer:
            return 200 <= int(answer.status) < 300
    except (URLError, OSError):
        return False


def scripted_upstream(folder: Path) -> Server:
    """`bench.upstream` on a free port."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    argv = [sys.executable, "-m", "bench.upstream", str(port)]
    return Server("upstream", argv, base, f"{base}/models", folder / "upstream.log")
