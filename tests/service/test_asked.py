"""What an upstream's model writes, seen from a thread beside the gateway's loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ctxmem import chat
from ctxmem.errors import Unavailable
from service.settings import Upstream
from service.states import Asked

MESSAGES = (chat.build("user", "Hello?"),)
WORDS = ["Grüße", " an", " alle", "\n", "🌊"]


@dataclass
class Fake:
    """An upstream that answers with these bytes, so many at a time."""

    left: bytes
    kind: bytes = b"text/event-stream"
    status: int = 200
    at_once: int = 1000
    asked: dict[str, Any] = field(default_factory=dict)
    key: None = None
    settings: Upstream = field(default_factory=lambda: Upstream(name="u", base_url="http://u/v1", models=("m",)))

    @asynccontextmanager
    async def send(self, method: str, path: str, *, headers: list[Any], body: bytes) -> AsyncIterator[Fake]:
        self.asked = json.loads(body)
        yield self

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"Content-Type", self.kind + b"; charset=utf-8"),)

    async def read(self) -> bytes:
        piece, self.left = self.left[: self.at_once], self.left[self.at_once :]
        await asyncio.sleep(0)
        return piece

    async def body(self) -> bytes:
        return self.left


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def streamed(end: str, *more: str) -> bytes:
    events = [{"choices": [{"delta": {"content": word}}]} for word in WORDS]
    lines = [": ping", "data: " + json.dumps({"choices": []}), *(f"data: {json.dumps(one)}" for one in events), *more]
    return "".join(line + end + end for line in lines).encode()


def said(fake: Fake, loop: asyncio.AbstractEventLoop, *, stream: bool = True) -> list[str]:
    asked = Asked({"u": fake}, "m", loop, stream=stream)  # type: ignore[dict-item]
    return list(asked.complete(MESSAGES, max_tokens=7))


@pytest.mark.parametrize("at_once", [1, 7, 100, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pieces_come_as_they_are_written(loop: asyncio.AbstractEventLoop, end: str, at_once: int) -> None:
    """However the bytes are cut, and whatever other events there are."""
    fake = Fake(streamed(end, "data: [DONE]"), at_once=at_once)
    assert said(fake, loop) == WORDS
    assert (fake.asked["stream"], fake.asked["max_tokens"]) == (True, 7)


@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_cannot_stream_answers_whole(loop: asyncio.AbstractEventLoop, stream: bool) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi."}}]}).encode()
    fake = Fake(body, kind=b"application/json")
    assert said(fake, loop, stream=stream) == ["Hi."]
    assert fake.asked.get("stream", False) is stream


@pytest.mark.parametrize(
    "fake",
    [
        Fake(b"", status=500),
        Fake(b""),
        Fake(b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n'),
        Fake(b'data: {"choices": [{"delta": {"content": 3}}]}\n\n'),
    ],
)
def test_no_text_is_told(loop: asyncio.AbstractEventLoop, fake: Fake) -> None:
    with pytest.raises(Unavailable):
        said(fake, loop)


def test_who_stops_listening_stops_the_answer(loop: asyncio.AbstractEventLoop) -> None:
    fake = Fake(streamed("\n") * 1000, at_once=10)
    pieces = Asked({"u": fake}, "m", loop, stream=True).complete(MESSAGES, max_tokens=7)  # type: ignore[dict-item]
    assert next(pieces) == WORDS[0]
    pieces.close()  # type: ignore[attr-defined]
    before = len(fake.left)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.02), loop).result()
    assert before - len(fake.left) <= 20
    assert len(fake.left) > 1000
