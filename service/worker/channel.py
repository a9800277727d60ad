"""HTTP over the model worker's Unix socket, with what can go wrong told in our own errors."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path

import msgspec

from ctxmem.errors import InvalidInput, ModelError, Unavailable
from service.worker.wire import MSGPACK

_PAUSE = 1.0  # seconds for which a worker that did not answer is left alone


class Channel:
    """One connection to the worker per thread. A connection that went stale is opened anew once."""

    def __init__(self, socket_path: Path | str) -> None:
        """Name the worker's socket; nothing is opened before the first exchange."""
        self._path = str(socket_path)
        self._local = threading.local()
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
            InvalidInput: it refuses the input.
        """
        if time.monotonic() < self._away_until:
            raise Unavailable("the model worker did not answer just now")
        connection = self._connection(timeout)
        used = connection.sock is not None
        try:
            return _answer(connection, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if used and not isinstance(error, TimeoutError):
                return self.exchange(method, path, body, timeout=timeout)
            self._away_until = time.monotonic() + _PAUSE
            raise Unavailable(f"the model worker is out of reach: {error!r}") from error

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        """This thread's connection, opened or not."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = UnixConnection(self._path)
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("worker")
        self._path = path

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


def _answer(connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> bytes:
    connection.request(method, path, body, {"content-type": MSGPACK})
    reply = connection.getresponse()
    content = reply.read()
    if reply.status != http.HTTPStatus.OK:
        raise _error(reply.status, content)
    return content


def _error(status: int, body: bytes) -> InvalidInput | ModelError | Unavailable:
    """The worker's refusal as the error it was there."""
    try:
        told = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        told = _Told(f"the model worker answered {status}")
    if status == http.HTTPStatus.BAD_REQUEST:
        return InvalidInput(told.message, param=told.param)
    return ModelError(told.message) if told.code == ModelError.code else Unavailable(told.message)


class _Told(msgspec.Struct):
    message: str
    param: str | None = None
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Told
