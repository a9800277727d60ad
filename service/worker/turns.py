"""One compute thread that many pieces of work share, step by step.

A piece of work is a generator; each step runs in the thread while the event loop goes on. Between two steps the most
urgent work goes next, so scoring with a deadline slips between the tokens of a chat, and chats of equal rank take
turns. A cancelled request stops after the step under way.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import Generic, TypeVar

from service.errors import Overloaded

Step = TypeVar("Step")
Result = TypeVar("Result")


class Rank(IntEnum):
    """Who goes first."""

    DEADLINE = 0
    CHAT = 1
    BACKGROUND = 2


class Turns:
    """Hands out turns on the compute thread."""

    def __init__(self, *, limit: int) -> None:
        """Admit at most `limit` pieces of work at a time."""
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._busy = False
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Pieces of work begun and not done."""
        return self._admitted

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in the compute thread, ahead of all waiting work."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    @asynccontextmanager
    async def work(self, steps: Generator[Step, None, Result], *, rank: Rank) -> AsyncIterator[Work[Step, Result]]:
        """Admit a piece of work; leaving the block closes it, done or not.

        Raises:
            Overloaded: too many pieces of work are admitted.
        """
        if self._admitted >= self._limit:
            raise Overloaded(f"{self._admitted} requests are being worked on; try again soon")
        self._admitted += 1
        try:
            yield Work(self, steps, rank)
        finally:
            self._admitted -= 1
            self._thread.submit(steps.close)

    async def turn(self, function: Callable[[], Result], rank: Rank) -> Result:
        """Run one step when its turn comes."""
        await self._acquire(rank)
        step = asyncio.get_running_loop().run_in_executor(self._thread, function)
        step.add_done_callback(self._stepped)
        return await asyncio.shield(step)

    def close(self) -> None:
        """Start nothing more; the step under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _acquire(self, rank: Rank) -> None:
        if not self._busy:
            self._busy = True
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._tickets), place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._release()
            raise

    def _stepped(self, step: asyncio.Future[Result]) -> None:
        """Pass the turn on, also when whoever asked for the step has gone."""
        if not step.cancelled():
            step.exception()  # marks it as seen
        loop = step.get_loop()
        loop.call_soon(loop.call_soon, self._release)  # after who asked woke up and perhaps asked for its next step

    def _release(self) -> None:
        while self._waiting:
            *_, place = heapq.heappop(self._waiting)
            if not place.done():
                place.set_result(None)
                return
        self._busy = False


class Work(Generic[Step, Result]):
    """An admitted piece of work: iterate over its steps, then read `result`."""

    def __init__(self, turns: Turns, steps: Generator[Step, None, Result], rank: Rank) -> None:
        self._turns = turns
        self._steps = steps
        self._rank = rank
        self._result: list[Result] = []

    @property
    def result(self) -> Result:
        """What the work returned; there once the iteration is over."""
        return self._result[0]

    def __aiter__(self) -> Work[Step, Result]:
        return self

    async def __anext__(self) -> Step:
        step = await self._turns.turn(self._advance, self._rank)
        if not step:
            raise StopAsyncIteration
        return step[0]

    def _advance(self) -> tuple[Step, ...]:
        """The next step's value, or nothing after the last."""
        try:
            return (next(self._steps),)
        except StopIteration as done:
            self._result.append(done.value)
            return ()
