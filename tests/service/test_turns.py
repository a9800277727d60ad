"""One compute thread, shared step by step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import pytest

from service.errors import Overloaded
from service.worker.turns import Rank, Turns


def steps(name: str, count: int, log: list[str]) -> Generator[str, None, str]:
    """Work of `count` steps that notes each of them, and its end."""
    try:
        for _ in range(count):
            log.append(name)
            yield name
    finally:
        log.append(f"{name} closed")
    return f"{name} done"


async def drive(turns: Turns, name: str, count: int, log: list[str], rank: Rank = Rank.CHAT) -> str:
    """Do all of a piece of work."""
    async with turns.work(steps(name, count, log), rank=rank) as work:
        assert [step async for step in work] == [name] * count
        return work.result


def test_work_gives_its_steps_and_its_result() -> None:
    """A piece of work alone runs through."""
    log: list[str] = []
    assert asyncio.run(drive(Turns(limit=1), "a", 3, log)) == "a done"


def test_equals_take_turns() -> None:
    """Two chats advance token by token, neither waits for the other's end."""
    log: list[str] = []

    async def main() -> None:
        turns = Turns(limit=2)
        await asyncio.gather(drive(turns, "a", 3, log), drive(turns, "b", 3, log))

    asyncio.run(main())
    assert [name for name in log if len(name) == 1] == ["a", "b"] * 3


def test_the_urgent_goes_first() -> None:
    """A scoring with a deadline slips between the steps of a chat; background work waits for both."""
    log: list[str] = []

    async def main() -> None:
        turns = Turns(limit=3)
        await asyncio.gather(
            drive(turns, "c", 2, log),
            drive(turns, "b", 2, log, Rank.BACKGROUND),
            drive(turns, "d", 2, log, Rank.DEADLINE),
        )

    asyncio.run(main())
    assert [name for name in log if len(name) == 1] == ["c", "d", "d", "c", "b", "b"]


def test_more_work_than_the_limit_is_refused_until_some_is_done() -> None:
    """The queue is bounded, and room comes back."""
    log: list[str] = []

    async def main() -> None:
        turns = Turns(limit=1)
        async with turns.work(steps("a", 1, log), rank=Rank.CHAT):
            with pytest.raises(Overloaded):
                await drive(turns, "b", 1, log)
        assert turns.admitted == 0
        await drive(turns, "b", 1, log)

    asyncio.run(main())


def test_a_failing_step_is_the_failure_of_its_work_alone() -> None:
    """The thread goes on with the others."""

    def failing() -> Generator[str, None, str]:
        yield "once"
        raise ValueError("broken")

    async def fail(turns: Turns) -> None:
        async with turns.work(failing(), rank=Rank.CHAT) as work:
            async for _ in work:
                pass

    async def main() -> list[object]:
        turns = Turns(limit=2)
        return await asyncio.gather(fail(turns), drive(turns, "a", 3, []), return_exceptions=True)

    failed, done = asyncio.run(main())
    assert isinstance(failed, ValueError)
    assert done == "a done"


def test_a_cancelled_request_stops_after_the_step_under_way() -> None:
    """Its generator is closed, and the turn passes on only when the thread is free."""
    log: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    async def main() -> None:
        turns = Turns(limit=3)
        task = asyncio.create_task(_driven(turns, _blocked(begun, go_on, log)))
        await asyncio.to_thread(begun.wait, 10)
        waiting = asyncio.create_task(drive(turns, "waiting", 1, log))
        other = asyncio.create_task(drive(turns, "other", 1, log))
        await asyncio.sleep(0)
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        assert log == []
        go_on.set()
        assert await other == "other done"
        assert turns.admitted == 0

    asyncio.run(main())
    assert log[:2] == ["blocked", "blocked closed"]
    assert {"never", "waiting"}.isdisjoint(log)


def _blocked(begun: threading.Event, go_on: threading.Event, log: list[str]) -> Generator[str, None, str]:
    """Work whose first step takes until it is told to go on."""
    try:
        begun.set()
        go_on.wait(10)
        log.append("blocked")
        yield "blocked"
        log.append("never")
    finally:
        log.append("blocked closed")
    return ""


async def _driven(turns: Turns, work_steps: Generator[str, None, str]) -> None:
    async with turns.work(work_steps, rank=Rank.CHAT) as work:
        async for _ in work:
            pass
