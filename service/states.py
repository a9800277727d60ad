"""States worked out after answers: a thread of the gateway does the jobs, and asks a model of an upstream."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ctxmem.errors import Unavailable
from ctxmem.manager import ContextManager
from ctxmem.manager.consolidation import KIND, Consolidation
from ctxmem.ports import Jobs
from ctxmem.runner import Runner
from ctxmem.types import Message
from ctxmem.wires.sse import events
from service.upstream.client import Reply, UpstreamClient
from service.upstream.routing import route

PATIENCE = 120.0
"""Seconds that one answer of the model may take."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A `Complete` over an upstream, for threads beside the loop that its connections belong to.

    Attributes:
        upstreams: by name.
        model: the model, as a client would name it.
        loop: the gateway's.
        stream: whether the answer comes in pieces as it is written, where the upstream can do that.
    """

    upstreams: Mapping[str, UpstreamClient]
    model: str
    loop: asyncio.AbstractEventLoop
    stream: bool = False

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """The answer's text.

        Raises:
            Unavailable: the upstream refused, took too long, or its answer has no text.
            UpstreamError: it could not be reached, or not in time.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        asked = asyncio.run_coroutine_threadsafe(self._answer(messages, max_tokens, pieces.put), self.loop)
        asked.add_done_callback(lambda _: pieces.put(None))
        until = time.monotonic() + PATIENCE
        try:
            while (piece := pieces.get(timeout=max(0.0, until - time.monotonic()))) is not None:
                yield piece
            asked.result()
        except Empty:
            raise Unavailable(f"model {self.model!r} wrote for more than {PATIENCE:.0f} s") from None
        finally:
            asked.cancel()

    async def _answer(self, messages: Sequence[Message], max_tokens: int, put: Callable[[str], None]) -> None:
        found = route(self.upstreams, self.model)
        body = {
            "model": found.model,
            "messages": [json.loads(message.raw or b"{}") for message in messages],
            "max_tokens": max_tokens,
        } | ({"stream": True} if self.stream else {})
        headers = [("content-type", "application/json")]
        if found.upstream.key is not None:
            headers.append(("authorization", f"Bearer {found.upstream.key}"))
        content = json.dumps(body, ensure_ascii=False).encode()
        async with found.upstream.send("POST", "/chat/completions", headers=headers, body=content) as reply:
            if reply.status != 200:
                raise Unavailable(f"model {self.model!r} answered with status {reply.status}")
            if self.stream and _is_events(reply):
                await _deltas(reply, put)
            else:
                put(_text(json.loads(await reply.body())))


@dataclass(slots=True)
class StatesAhead:
    """Takes jobs up while the gateway runs. A process that dies leaves them to the next.

    Attributes:
        manager: the manager of any tenant.
        jobs: the outbox.
        upstreams: by name.
        model: the model that is asked.
    """

    manager: ContextManager
    jobs: Jobs
    upstreams: Mapping[str, UpstreamClient]
    model: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; needs a running loop."""
        asked = Asked(self.upstreams, self.model, asyncio.get_running_loop())
        work = Consolidation(self.manager, asked, timeout_s=PATIENCE)
        runner = Runner(self.jobs, {KIND: work})
        self._thread = threading.Thread(target=runner.run, args=(self._stop,), name="states", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Take no more up; one under way is finished, or given up on after its patience."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, PATIENCE)


def _is_events(reply: Reply) -> bool:
    types = [value for name, value in reply.headers if name.lower() == b"content-type"]
    return any(value.lower().startswith(b"text/event-stream") for value in types)


async def _deltas(reply: Reply, put: Callable[[str], None]) -> None:
    """Put the texts of a stream's events as they come.

    Raises:
        Unavailable: it ends without a text.
    """
    waiting, said = b"", False
    while chunk := await reply.read():
        whole, cut, waiting = (waiting + chunk).replace(b"\r\n", b"\n").rpartition(b"\n\n")
        for payload in events(whole + cut):
            text = _delta(payload)
            if text:
                put(text)
                said = True
    if not said:
        raise Unavailable("the model's answer has no text")


def _delta(payload: bytes) -> str:
    """The text in one event of a streamed chat completion; empty where it has none."""
    answer = json.loads(payload) if payload.startswith(b"{") else None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    delta = choices[0].get("delta") if isinstance(choices, list) and choices else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else ""


def _text(answer: Any) -> str:
    """The text of a chat completion.

    Raises:
        Unavailable: there is none.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise Unavailable("the model's answer has no text")
    return content
