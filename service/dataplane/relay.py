"""Passing an upstream's answer on: bytes as they come, the end of it only once it is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter

from starlette.types import Send

from ctxmem.errors import CtxmemError
from ctxmem.wires.completion import Answer
from ctxmem.wires.sse import Tee
from ctxmem.wires.wire import Wire
from service.dataplane.memory import Memory, Turn, nothing
from service.errors import UpstreamDown
from service.upstream.client import Cut, Reply
from service.wire.encoding import unpacked
from service.wire.headers import first, to_client

_UNPACKED_LIMIT = 2**28


@dataclass(slots=True)
class Clock:
    """Tells our own time from the time spent waiting for others.

    Attributes:
        started: when the request came.
        waited: seconds spent waiting for client and upstream.
    """

    started: float = field(default_factory=perf_counter)
    waited: float = 0.0

    @property
    def overhead(self) -> float:
        """Seconds of our own so far."""
        return perf_counter() - self.started - self.waited

    def since(self, start: float) -> float:
        """Count the time since `start` as waiting; returns it in seconds."""
        passed = perf_counter() - start
        self.waited += passed
        return passed


@dataclass(slots=True)
class Relay:
    """One answer on its way to the client.

    Attributes:
        tenant: whose request it is.
        wire: how the answer is written.
        turn: the request.
        memory: where the answer is recorded.
        send: the ASGI channel.
        clock: the request's clock.
        status: status sent; 0 before that.
    """

    tenant: str
    wire: Wire
    turn: Turn
    memory: Memory
    send: Send
    clock: Clock
    status: int = 0
    _read: Callable[[], Answer] = nothing
    _recorded: bool = False

    async def run(self, reply: Reply) -> None:
        """Pass an answer on.

        Raises:
            UpstreamDown: the answer broke off before any of it was passed on.
            Cut: it broke off later; the client must see a broken connection.
        """
        streamed = first(to_client(reply.headers), b"content-type").lower().startswith(b"text/event-stream")
        if self.turn.prepared is None:
            await self._through(reply)
        elif streamed and reply.status == 200:
            await self._streamed(reply)
        else:
            await self._whole(reply)

    async def close(self) -> None:
        """Record what came, when the exchange ended early."""
        if not self._recorded:
            self._recorded = True
            read = self._read
            await self.memory.record(self.tenant, self.turn, lambda: _cut(read()))

    async def _through(self, reply: Reply) -> None:
        """Bytes from one side to the other; nobody reads them."""
        await self._head(reply)
        while chunk := await reply.read():
            await self._body(chunk)
        await self._body(b"", more=False)

    async def _whole(self, reply: Reply) -> None:
        start = perf_counter()
        try:
            body = await reply.body()
        except Cut as error:
            raise UpstreamDown("the upstream broke its answer off") from error
        self.clock.since(start)
        encoding = first(to_client(reply.headers), b"content-encoding").decode("latin-1")
        if reply.status == 200:
            self._read = lambda: self.wire.read(_readable(body, encoding))
        await self._record()
        await self._head(reply)
        await self._body(body, more=False)

    async def _streamed(self, reply: Reply) -> None:
        tee = Tee(self.wire.endings)
        encoding = first(to_client(reply.headers), b"content-encoding").decode("latin-1")
        self._read = lambda: self.wire.assemble(_readable(tee.received, encoding))
        await self._head(reply)
        while chunk := await reply.read():
            passed = tee.feed(chunk)
            if passed:
                await self._body(passed)
            if tee.done:
                break
        await self._record()
        await self._body(tee.held)
        while chunk := await reply.read():
            await self._body(chunk)
        await self._body(b"", more=False)

    async def _record(self) -> None:
        await self.memory.record(self.tenant, self.turn, self._read)
        self._recorded = True

    async def _head(self, reply: Reply) -> None:
        self.status = reply.status
        overhead = (b"x-ctxmem-overhead-ms", b"%.2f" % (self.clock.overhead * 1000))
        headers = [*to_client(reply.headers), *self.turn.headers, overhead]
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def _body(self, chunk: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})


def _readable(body: bytes, encoding: str) -> bytes:
    """The body unpacked; empty when it cannot be."""
    try:
        return unpacked(body, encoding, limit=_UNPACKED_LIMIT)
    except CtxmemError:
        return b""


def _cut(answer: Answer) -> Answer:
    return replace(answer, complete=False)
