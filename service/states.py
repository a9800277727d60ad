"""States worked out after answers: a thread of the gateway does the jobs, and asks a model of an upstream."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxmem.errors import Unavailable
from ctxmem.manager import ContextManager
from ctxmem.manager.consolidation import KIND, Consolidation
from ctxmem.ports import Jobs
from ctxmem.runner import Runner
from ctxmem.types import Message
from service.upstream.client import UpstreamClient
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
    """

    upstreams: Mapping[str, UpstreamClient]
    model: str
    loop: asyncio.AbstractEventLoop

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """The answer, in one piece.

        Raises:
            Unavailable: the upstream refused, or its answer has no text.
            UpstreamError: it could not be reached, or not in time.
        """
        asked = asyncio.run_coroutine_threadsafe(self._answer(messages, max_tokens), self.loop)
        yield asked.result(PATIENCE)

    async def _answer(self, messages: Sequence[Message], max_tokens: int) -> str:
        found = route(self.upstreams, self.model)
        body = {
            "model": found.model,
            "messages": [json.loads(message.raw or b"{}") for message in messages],
            "max_tokens": max_tokens,
        }
        headers = [("content-type", "application/json")]
        if found.upstream.key is not None:
            headers.append(("authorization", f"Bearer {found.upstream.key}"))
        content = json.dumps(body, ensure_ascii=False).encode()
        async with found.upstream.send("POST", "/chat/completions", headers=headers, body=content) as reply:
            answer = await reply.body()
        if reply.status != 200:
            raise Unavailable(f"model {self.model!r} answered with status {reply.status}")
        return _text(json.loads(answer))


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
