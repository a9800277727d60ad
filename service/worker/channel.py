"""HTTP over the model worker's Unix socket, with what can go wrong told in our own errors."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path

import msgspec

from ctxmem.errors import Conflict, CtxmemError, InvalidInput, ModelError, StoreError, Unavailable
from service.worker.wire import MSGPACK

_PAUSE = 1.0  # seconds for which a worker that did not answer is left alone


class Channel:
    """Connections to the worker, one per thread that calls at the same time. Stale ones are opened anew."""

    def __init__(self, socket_path: Path | str) -> None:
        """Name the worker's socket; nothing is opened before the first exchange."""
        self._path = str(socket_path)
        self._idle: list[UnixConnection] = []
        self._lock = threading.Lock()
        self._away_until = 0.0

    def exchange(self, method: str, path: str, body: bytes = b"", *, timeout: float) -> bytes:
        """Send a request and read the answer's body.

        Args:
            method: HTTP method.
            path: where to.
            body: msgpack.
            timeout: seconds to wait at each step.

        Raises:
            Unavailable: the worker is away, loading or overloaded.
            ModelError: it lacks the model.
            InvalidInput, Conflict: it refuses the input.
            StoreError: it cannot use the database.
        """
        if time.monotonic() < self._away_until:
            raise Unavailable("the model worker did not answer just now")
        connection = self._taken() or UnixConnection(self._path, timeout=timeout)
        used = connection.sock is not None
        connection.wait(timeout)
        try:
            status, content = _answer(connection, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if used and not isinstance(error, TimeoutError):
                self.close()
                return self.exchange(method, path, body, timeout=timeout)
            self._away_until = time.monotonic() + _PAUSE
            raise Unavailable(f"the model worker is out of reach: {error!r}") from error
        with self._lock:
            self._idle.append(connection)
        if status != http.HTTPStatus.OK:
            raise _error(status, content)
        return content

    def close(self) -> None:
        """Close the idle connections; later calls open new ones."""
        while connection := self._taken():
            connection.close()

    def _taken(self) -> UnixConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, *, timeout: float) -> None:
        super().__init__("worker", timeout=timeout)
        self._path = path

    def wait(self, seconds: float) -> None:
        """How long each step may take from now on."""
        self.timeout = seconds
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def connect(self) -> None:
        """Open the socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def _answer(connection: UnixConnection, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request(method, path, body, {"content-type": MSGPACK})
    reply = connection.getresponse()
    return reply.status, reply.read()


def _error(status: int, body: bytes) -> CtxmemError:
    """The worker's refusal as the error it was there."""
    try:
        told = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        told = _Told(f"the model worker answered {status}")
    if status == http.HTTPStatus.BAD_REQUEST:
        return InvalidInput(told.message, param=told.param)
    known = {kind.code: kind for kind in (ModelError, Conflict, StoreError)}
    return known.get(told.code or "", Unavailable)(told.message)


class _Told(msgspec.Struct):
    message: str
    param: str | None = None
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Told
