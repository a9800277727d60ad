"""Receiving a request: the body under its limits, and noticing when the client leaves."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from service.errors import BodyTimeout, BodyTooLarge
from service.wire.headers import Headers, first


class ClientGone(Exception):
    """The client closed its connection before its answer ended."""


async def body(receive: Receive, headers: Headers, *, limit: int, timeout_s: float) -> bytes:
    """Read a request body.

    Args:
        receive: the ASGI channel.
        headers: the request's headers.
        limit: largest body in bytes, by `content-length` and as counted.
        timeout_s: seconds for the whole of it.

    Raises:
        BodyTooLarge: it is larger.
        BodyTimeout: it took longer.
        ClientGone: the client left in the middle of it.
    """
    declared = first(headers, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _pieces(receive, limit)
    except TimeoutError as error:
        raise BodyTimeout(f"The request body did not arrive within {timeout_s:g} s.") from error


async def _pieces(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(event.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise BodyTooLarge(limit)
        if not event.get("more_body"):
            return b"".join(pieces)


class Attended:
    """A block that ends with `ClientGone` as soon as the client leaves, whatever it is waiting for.

    Works like `asyncio.timeout`: the block's task is cancelled, and the cancellation becomes the exception.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a block can be attended inside a task only")
        self._task = task
        self._watch = asyncio.create_task(self._until_gone())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if self._gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from error

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
