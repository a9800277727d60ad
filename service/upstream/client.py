"""One upstream over HTTP/1.1: closing the socket of a request cancels that request and no other.

Retries nothing but a connection that could not be made, once. Redirects are answers like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import aiohttp

from ctxmem.models import is_packaged, packaged
from service.errors import UpstreamDown, UpstreamError, UpstreamSlow, WorkerDown
from service.settings import LOCAL, Settings, Upstream
from service.upstream.breaker import Breaker

_BIG = 2**20
_WORKER_URL = "http://worker/v1"
_COULD_NOT_CONNECT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Cut(Exception):
    """The upstream broke its answer off, or fell silent in the middle of it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's answer, its body still to come.

    Attributes:
        status: HTTP status.
        headers: raw headers as received.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    _response: aiohttp.ClientResponse
    _idle_s: float

    async def read(self) -> bytes:
        """The next bytes of the body as they arrive; empty at its end.

        Raises:
            Cut: the connection broke, or no byte came for the upstream's idle timeout.
        """
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Cut(f"{type(error).__name__}: {error}") from error

    async def body(self) -> bytes:
        """What is left of the body.

        Raises:
            Cut: see `read`.
        """
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)


class UpstreamClient:
    """Connections to one upstream.

    Args:
        settings: the upstream.
        key: its key; the client's own credential never goes there.
        socket: Unix socket to reach it by, instead of its address.

    Attributes:
        settings: the upstream's settings.
        breaker: its circuit breaker.
    """

    def __init__(self, settings: Upstream, *, key: str | None = None, socket: Path | None = None) -> None:
        self.settings = settings
        self.key = key
        self.breaker = Breaker(settings.name)
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; needs a running loop."""
        connector: aiohttp.BaseConnector
        connector = aiohttp.UnixConnector(str(self._socket), limit=0) if self._socket else aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self.settings.connect_timeout_s),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(
        self, method: str, path: str, *, headers: list[tuple[str, str]], body: bytes | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request; the answer's head has come when the block starts.

        However the block is left, an answer that was not read to its end has its connection closed at once.

        Args:
            method: HTTP method.
            path: path below the base URL.
            headers: all headers but host and length.
            body: bytes to send.

        Raises:
            UpstreamDown: no connection, or it broke before the head; `WorkerDown` where the upstream is our own worker.
            UpstreamSlow: no connection or no head in time.
            UpstreamPaused: the upstream failed too often just now.
        """
        self.breaker.check()
        try:
            response = await self._head(method, path, headers, body)
        except UpstreamError:
            self.breaker.failed()
            raise
        self.breaker.succeeded()
        try:
            yield Reply(response.status, response.raw_headers, response, self.settings.idle_timeout_s)
        finally:
            response.close()

    async def _head(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None
    ) -> aiohttp.ClientResponse:
        name = self.settings.name
        try:
            async with asyncio.timeout(self.settings.first_byte_timeout_s):
                try:
                    return await self._once(method, path, headers, body)
                except _COULD_NOT_CONNECT:
                    return await self._once(method, path, headers, body)
        except TimeoutError as error:
            raise UpstreamSlow(f"upstream {name} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            down = WorkerDown if self._socket else UpstreamDown
            raise down(f"upstream {name} cannot be reached: {type(error).__name__}") from error

    async def _once(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise UpstreamDown(f"upstream {self.settings.name} is not open")
        return await self._session.request(
            method,
            self.settings.base_url.rstrip("/") + path,
            headers=headers,
            data=BytesIO(body) if body is not None and len(body) > _BIG else body,
            allow_redirects=False,
        )


def clients(settings: Settings) -> dict[str, UpstreamClient]:
    """A client for every upstream of the settings, by name; `local` is there when a model is set.

    Raises:
        ConfigError: an upstream's key cannot be read.
    """
    made = {each.name: UpstreamClient(each, key=each.key()) for each in settings.upstreams}
    if settings.model:
        made[LOCAL] = UpstreamClient(local(settings), socket=settings.worker_socket)
    return made


def local(settings: Settings) -> Upstream:
    """The model worker as an upstream: no key, no prompt prices."""
    alias = packaged(settings.model).alias if is_packaged(settings.model) else ""
    models = tuple(name for name in (alias, settings.model) if name)
    return Upstream(name=LOCAL, base_url=_WORKER_URL, models=models, tokenizer=settings.model)
