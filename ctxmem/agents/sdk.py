"""Where a wrapped client's requests pass: below the SDK's own code, so every helper, retry and parser of it stays.

The SDKs hand each finished request to an HTTP client. That client is replaced by one that gives a turn's body the
context that fits, listens to the answer, and leaves the sending to the client that was there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2

from ctxmem import chat
from ctxmem.errors import BudgetError, Conflict, CtxmemError, InvalidInput, NotFound
from ctxmem.manager import Call, ContextManager, Prepared
from ctxmem.types import Budget
from ctxmem.wires import splice
from ctxmem.wires.completion import Answer
from ctxmem.wires.known import WIRES
from ctxmem.wires.sse import Tee
from ctxmem.wires.wire import Wire

Client = TypeVar("Client")

_log = logging.getLogger("ctxmem")
_CALLERS = (InvalidInput, BudgetError, NotFound, Conflict)
"""What the caller must put right; with any other error of ours the request goes on as it came."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Makes turns of requests.

    Attributes:
        manager: builds and records.
        session: the session; None lets the history find it.
        user: whose it is.
        policy: name of the policy.
        budget: prompt tokens allowed.
    """

    manager: ContextManager
    session: str | None = None
    user: str = ""
    policy: str | None = None
    budget: Budget | None = None

    def turn(self, request: httpx2.Request) -> Turn | None:
        """The turn that a request is; None for what is none, and for what must go as it came."""
        path = request.url.path
        wire = next((wire for wire in WIRES.values() if wire.field and path.endswith(wire.path)), None)
        if request.method != "POST" or wire is None:
            return None
        body = splice.split(request.read())
        if wire.aside(body):
            return None
        try:
            prepared = self.manager.build(self._call(wire, body, request))
        except _CALLERS:
            raise
        except CtxmemError as error:
            _log.warning("build failed, the request goes on without memory: %s", error.code, exc_info=error)
            return None
        content = wire.edited(body, prepared.messages) if prepared.changed else body.original
        return Turn(self.manager, wire, prepared, _with_body(request, content))

    def _call(self, wire: Wire, body: splice.Body, request: httpx2.Request) -> Call:
        return Call(
            messages=chat.parse_all(wire.messages(body)),
            model=body.text("model") or "",
            session_id=self.session,
            user_id=self.user,
            budget=self.budget,
            reserve=wire.reserve(body),
            tools=wire.chat_tools(body),
            policy=self.policy,
            retry=request.headers.get("x-stainless-retry-count", "0") != "0",
        )


@dataclass(slots=True)
class Turn:
    """One request and its answer.

    Attributes:
        manager: records.
        wire: how both are written.
        prepared: the account of the request.
        request: what is sent.
    """

    manager: ContextManager
    wire: Wire
    prepared: Prepared
    request: httpx2.Request
    _tee: Tee = field(init=False)
    _recorded: bool = False

    def __post_init__(self) -> None:
        self._tee = Tee(self.wire.endings)

    def feed(self, chunk: bytes) -> bytes:
        """Take a piece of the answer; returns what may go on now, the end only once the answer is recorded."""
        passed = self._tee.feed(chunk)
        if not self._tee.done or self._recorded:
            return passed if not self._recorded else chunk
        self.record(lambda: self.wire.assemble(self._tee.received))
        return passed + self._tee.held

    def heard(self, response: httpx2.Response) -> httpx2.Response:
        """A response whose body is read: record what it says."""
        said = response.status_code == 200
        self.record(lambda: self.wire.read(response.content) if said else Answer(complete=False))
        return self.told(response)

    def told(self, response: httpx2.Response) -> httpx2.Response:
        """The response, with the name of its receipt in it."""
        response.headers["x-ctxmem-request-id"] = self.prepared.request_id
        response.headers["x-ctxmem-session"] = self.prepared.session_id
        return response

    def end(self, *, streamed: bool) -> bytes:
        """The body is over or was left: record what came, and give what was held back."""
        if self._recorded:
            return b""
        received = self._tee.received
        self.record(lambda: self.wire.assemble(received) if streamed else self.wire.read(received))
        return self._tee.held

    def record(self, read: Callable[[], Answer]) -> None:
        """Log the answer, once. A failure of ours is logged aloud and takes nothing from the caller."""
        if self._recorded:
            return
        self._recorded = True
        try:
            answer = read()
            for message in reversed(answer.messages or (None,)):
                self.manager.answer(
                    self.prepared.request_id, message, answer.more, complete=answer.complete, usage=answer.usage
                )
        except CtxmemError as error:
            _log.warning("the answer was not recorded: %s", error.code, exc_info=error)


class _Heard(httpx2.SyncByteStream):
    """A response's body on its way to the SDK."""

    def __init__(self, body: Any, turn: Turn, *, streamed: bool) -> None:
        self._body, self._turn, self._streamed = body, turn, streamed

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            if passed := self._turn.feed(chunk):
                yield passed
        if held := self._turn.end(streamed=self._streamed):
            yield held

    def close(self) -> None:
        """The SDK has what it wants."""
        self._body.close()
        self._turn.end(streamed=self._streamed)


class _HeardLater(httpx2.AsyncByteStream):
    """The same for an async client."""

    def __init__(self, body: Any, turn: Turn, *, streamed: bool) -> None:
        self._body, self._turn, self._streamed = body, turn, streamed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            if passed := await asyncio.to_thread(self._turn.feed, chunk):
                yield passed
        if held := await asyncio.to_thread(self._turn.end, streamed=self._streamed):
            yield held

    async def aclose(self) -> None:
        """The SDK has what it wants, or its task was cancelled: then no thread would be waited for."""
        self._turn.end(streamed=self._streamed)
        await self._body.aclose()


class _Nowhere(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The transport of a client that sends nothing itself."""


class Through(httpx2.Client):
    """An HTTP client that sends through another one, turns managed."""

    def __init__(self, inner: httpx2.Client, turns: Turns) -> None:
        super().__init__(transport=_Nowhere(), timeout=inner.timeout, trust_env=False)
        self._inner, self._turns = inner, turns

    def build_request(self, *args: Any, **options: Any) -> httpx2.Request:
        """As the other client builds it."""
        return self._inner.build_request(*args, **options)

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request; see `httpx2.Client.send`."""
        turn = self._turns.turn(request)
        if turn is None:
            return self._inner.send(request, stream=stream, **options)
        try:
            response = self._inner.send(turn.request, stream=stream, **options)
        except BaseException:
            turn.record(_nothing)
            raise
        if not stream:
            return turn.heard(response)
        response.stream = _Heard(response.stream, turn, streamed=_is_stream(response))
        return turn.told(response)

    def close(self) -> None:
        """Close the other client."""
        self._inner.close()
        super().close()


class ThroughLater(httpx2.AsyncClient):
    """The same for an async client; the work is done in a thread."""

    def __init__(self, inner: httpx2.AsyncClient, turns: Turns) -> None:
        super().__init__(transport=_Nowhere(), timeout=inner.timeout, trust_env=False)
        self._inner, self._turns = inner, turns

    def build_request(self, *args: Any, **options: Any) -> httpx2.Request:
        """As the other client builds it."""
        return self._inner.build_request(*args, **options)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request; see `httpx2.AsyncClient.send`."""
        turn = await asyncio.to_thread(self._turns.turn, request)
        if turn is None:
            return await self._inner.send(request, stream=stream, **options)
        try:
            response = await self._inner.send(turn.request, stream=stream, **options)
        except BaseException:
            turn.record(_nothing)
            raise
        if not stream:
            return await asyncio.to_thread(turn.heard, response)
        response.stream = _HeardLater(response.stream, turn, streamed=_is_stream(response))
        return turn.told(response)

    async def aclose(self) -> None:
        """Close the other client."""
        await self._inner.aclose()
        await super().aclose()


def through(client: Client, turns: Turns) -> Client:
    """A copy of an SDK's client that sends its turns through ctxmem."""
    inner = client._client  # type: ignore[attr-defined]  # the SDKs have no public name for it
    if isinstance(inner, httpx2.AsyncClient):
        copied: Client = client.copy(http_client=ThroughLater(inner, turns))  # type: ignore[attr-defined]
        return copied
    if isinstance(inner, httpx2.Client):
        managed: Client = client.copy(http_client=Through(inner, turns))  # type: ignore[attr-defined]
        return managed
    raise InvalidInput(f"wrap needs a client over httpx2, this one has {type(inner).__module__}", param="client")


def _with_body(request: httpx2.Request, content: bytes) -> httpx2.Request:
    """The request with a body, asking for an answer that can be read as it comes."""
    headers = request.headers.copy()
    del headers["content-length"]
    headers["accept-encoding"] = "identity"
    return httpx2.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)


def _is_stream(response: httpx2.Response) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith("text/event-stream"))


def _nothing() -> Answer:
    return Answer(complete=False)
