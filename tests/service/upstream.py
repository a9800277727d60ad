"""A scripted upstream: answers byte for byte what a test tells it to, and remembers byte for byte what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Pause:
    """Wait before the next piece."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """Break the connection."""


@dataclass(frozen=True)
class Until:
    """Wait for a test to say so."""

    event: threading.Event


@dataclass(frozen=True)
class Reply:
    """An answer: pieces are written one by one, chunked unless `length` says how long all of them are."""

    pieces: tuple[bytes | Pause | Cut | Until, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)
    length: int | None = None
    before: tuple[Pause | Cut | Until, ...] = ()


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def sha256(self) -> str:
        return sha256(self.body).hexdigest()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def completion(content: str | None = "Hello there.", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return {"id": "cc1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def whole(content: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer with its length."""
    body = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply((body,), status, (("content-type", JSON), *named), length=len(body))


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A streamed chunk."""
    return {
        "id": "cc1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": list(choices),
        **more,
    }


def delta(index: int = 0, finish: str | None = None, **said: Any) -> dict[str, Any]:
    """A choice of a chunk."""
    return {"index": index, "delta": said, "finish_reason": finish}


def events(*payloads: dict[str, Any] | str, end: str = "\n") -> bytes:
    """Payloads as server-sent events."""
    texts = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in payloads]
    return "".join(f"data: {text}{end}{end}" for text in texts).encode()


def streamed(*pieces: bytes | Pause | Cut | Until) -> Reply:
    """A stream of server-sent events."""
    return Reply(pieces, headers=(("content-type", SSE), ("cache-control", "no-cache")))


def words(*texts: str) -> bytes:
    """A whole stream that says the texts one by one."""
    said = [chunk(delta(role="assistant", content=""))]
    said += [chunk(delta(content=text)) for text in texts]
    return events(*said, chunk(delta(finish="stop")), "[DONE]")


def strict(request: Received) -> Reply:
    """What providers do: refuse torn tool exchanges, answer everything else."""
    asked = request.json
    wrong = torn(asked.get("messages", []))
    if wrong:
        error = {"message": wrong, "type": "invalid_request_error", "param": "messages", "code": None}
        return whole({"error": error}, 400)
    return streamed(words("Hello", " there.")) if asked.get("stream") else whole(completion())


def torn(messages: Iterable[dict[str, Any]]) -> str | None:
    """Why a provider would refuse the tool calls and results of a conversation; None when it would not."""
    waiting: set[str] = set()
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return f"messages[{i}] answers no tool call before it"
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            return f"tool calls without an answer before messages[{i}]: {sorted(waiting)}"
        waiting = {call["id"] for call in message.get("tool_calls") or []}
    return f"tool calls without an answer: {sorted(waiting)}" if waiting else None


class Upstream:
    """The server, in a thread of its own, on a port or a Unix socket. Set `answer` to script it."""

    def __init__(self, socket: Path | None = None) -> None:
        self.socket = socket
        self.answer: Callable[[Received], Reply] = strict
        self.received: list[Received] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Received:
        return self.received[-1]

    def reset(self) -> None:
        self.answer = strict
        self.received.clear()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        if self.socket is not None:
            server: asyncio.Server = await asyncio.start_unix_server(self._connection, self.socket)
        else:
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(method, path, headers, body)
        self.received.append(request)
        watch = asyncio.create_task(self._watch(reader, request))
        try:
            return await self._reply(self.answer(request), writer, request)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, reader: asyncio.StreamReader, request: Received) -> None:
        """Note a client that leaves. Nothing else is read: requests are not pipelined."""
        while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - a read would eat the next request
            await asyncio.sleep(0.005)
        request.gone.set()

    async def _reply(self, reply: Reply, writer: asyncio.StreamWriter, request: Received) -> bool:
        for step in reply.before:
            if not await self._step(step, request):
                return False
        framing = f"content-length: {reply.length}" if reply.length is not None else "transfer-encoding: chunked"
        lines = [f"HTTP/1.1 {reply.status} X", framing, *(f"{name}: {value}" for name, value in reply.headers)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await writer.drain()
        for piece in reply.pieces:
            if not isinstance(piece, bytes):
                if not await self._step(piece, request):
                    return False
                continue
            writer.write(piece if reply.length is not None else b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            if len(reply.pieces) > 1:
                await asyncio.sleep(0)
        if reply.length is None:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return True

    async def _step(self, step: Pause | Cut | Until, request: Received) -> bool:
        """Do what is no piece; False when the connection is over."""
        if isinstance(step, Cut):
            return False
        wait = step.event.is_set if isinstance(step, Until) else None
        for _ in range(round((step.seconds if isinstance(step, Pause) else 30) / 0.005)):
            if request.gone.is_set():
                return False
            if wait is not None and wait():
                break
            await asyncio.sleep(0.005)
        return True
