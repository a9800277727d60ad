"""What a loop asks of the world, as values, and the two drivers that answer: one sync, one async.

A loop that calls a model several times is a generator: it yields an `Ask` or an `Act` and is sent the text that came
back, or a `Failed` that says why none did. So the logic exists once, and tests drive it by hand. A model or tool that
raises or hangs becomes a `Failed`; nothing it does can break the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from queue import SimpleQueue
from typing import Any, TypeVar

from ctxmem.ports import Complete
from ctxmem.types import Message

R = TypeVar("R")

MOST_CHARACTERS = 1_000_000
"""Characters of one answer that are taken in."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A model is asked.

    Attributes:
        messages: the prompt.
        max_tokens: tokens the answer may have.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Act:
    """A tool is called.

    Attributes:
        tool: its name.
        arguments: by name.
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing came back.

    Attributes:
        reason: `timeout`, or the error's type and message.
    """

    reason: str


Answer = str | Failed
Steps = Generator[Ask | Act, Answer, R]
"""A loop: yields effects, is sent answers, returns its result."""

Heard = Callable[[Sequence[str]], None]
"""Told the pieces of one answer so far, each time that one comes; the list goes on to grow."""

Tools = Mapping[str, Callable[..., Any]]
"""By name, what a tool does: takes its arguments by keyword, gives a text or what can be shown as one."""


def drive(
    steps: Steps[R],
    complete: Complete,
    tools: Tools | None = None,
    *,
    timeout_s: float = 120.0,
    heard: Heard | None = None,
) -> R:
    """Run a loop to its end.

    Models and tools run one at a time in one other thread; a call that outlasts its deadline is left behind there.

    Args:
        steps: the loop.
        complete: answers every `Ask`.
        tools: answer every `Act`.
        timeout_s: seconds one answer may take.
        heard: listens to the model.
    """
    hand = _Hand()
    try:
        effect = next(steps)
        while True:
            future = hand.do(partial(_perform, effect, complete, tools or {}, heard))
            try:
                error = future.exception(timeout_s)
                answer: Answer = _failure(error) if error is not None else future.result()
            except TimeoutError:
                hand.let_go()
                hand = _Hand()
                answer = Failed("timeout")
            effect = steps.send(answer)
    except StopIteration as done:
        result: R = done.value
        return result
    finally:
        hand.let_go()


async def adrive(
    steps: Steps[R],
    complete: Any,
    tools: Tools | None = None,
    *,
    timeout_s: float = 120.0,
    heard: Heard | None = None,
) -> R:
    """Run a loop to its end without blocking the event loop.

    Args:
        steps: the loop.
        complete: a `Complete`, which runs in a thread, or one whose `complete` is async: a coroutine that gives a text,
            or an async iterator of pieces.
        tools: functions, which run in a thread, or coroutine functions.
        timeout_s: seconds one answer may take.
        heard: listens to the model.
    """
    try:
        effect = next(steps)
        while True:
            waited = asyncio.wait_for(_aperform(effect, complete, tools or {}, heard), timeout_s)
            (found,) = await asyncio.gather(waited, return_exceptions=True)
            answer: Answer = _failure(found) if isinstance(found, BaseException) else found
            effect = steps.send(answer)
    except StopIteration as done:
        result: R = done.value
        return result


class _Hand:
    """A thread that does one thing after the other; it never holds up the end of the process, whatever it hangs in."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="ctxmem-effect", daemon=True).start()

    def do(self, call: Callable[[], R]) -> Future[R]:
        """Have it done, in the caller's context."""
        future: Future[R] = Future()
        self._waiting.put((future, partial(copy_context().run, call)))
        return future

    def let_go(self) -> None:
        """Nothing more will be asked of it."""
        self._waiting.put(None)

    def _serve(self) -> None:
        while (asked := self._waiting.get()) is not None:
            future, call = asked
            if future.set_running_or_notify_cancel():
                with ExitStack() as stack:
                    stack.push(partial(_tell, future))
                    future.set_result(call())


def _tell(future: Future[Any], kind: object, error: BaseException | None, at: object) -> bool:
    """Give an error to who waits for the future, and so keep it from the thread."""
    del kind, at
    if error is not None:
        future.set_exception(error)
    return error is not None


async def _beside(call: Callable[[], R]) -> R:
    """What a call gives that runs in a thread of its own."""
    hand = _Hand()
    future = hand.do(call)
    hand.let_go()
    return await asyncio.wrap_future(future)


def _perform(effect: Ask | Act, complete: Complete, tools: Tools, heard: Heard | None) -> Answer:
    if isinstance(effect, Ask):
        return gathered(complete.complete(effect.messages, max_tokens=effect.max_tokens), heard)
    tool = tools.get(effect.tool)
    if tool is None:
        return _unknown(effect, tools)
    return shown(tool(**effect.arguments))


async def _aperform(effect: Ask | Act, complete: Any, tools: Tools, heard: Heard | None) -> Answer:
    if isinstance(effect, Act):
        tool = tools.get(effect.tool)
        if tool is None:
            return _unknown(effect, tools)
        called = tool(**effect.arguments) if asyncio.iscoroutinefunction(tool) else None
        return shown(await (called if called is not None else _beside(partial(tool, **effect.arguments))))
    if not _is_async(complete.complete):
        return await _beside(partial(_perform, effect, complete, {}, heard))
    begun = complete.complete(effect.messages, max_tokens=effect.max_tokens)
    return gathered([await begun], heard) if isawaitable(begun) else await _agathered(begun, heard)


def _is_async(complete: Callable[..., Any]) -> bool:
    from inspect import isasyncgenfunction, iscoroutinefunction

    return isasyncgenfunction(complete) or iscoroutinefunction(complete)


def gathered(pieces: Iterable[str] | str, heard: Heard | None = None) -> str:
    """The pieces of an answer as one text, up to a million characters."""
    if isinstance(pieces, str):
        return pieces[:MOST_CHARACTERS]
    found: list[str] = []
    room = MOST_CHARACTERS
    for piece in pieces:
        found.append(piece[:room])
        room -= max(1, len(piece))  # so that empty pieces come to an end, too
        if heard is not None:
            heard(found)
        if room <= 0:
            break
    return "".join(found)


async def _agathered(pieces: AsyncIterator[str], heard: Heard | None) -> str:
    found: list[str] = []
    room = MOST_CHARACTERS
    async for piece in pieces:
        found.append(piece[:room])
        room -= max(1, len(piece))
        if heard is not None:
            heard(found)
        if room <= 0:
            break
    return "".join(found)


def shown(result: Any) -> str:
    """What a tool gave, as a text: a text as it is, else JSON where there is a form of it."""
    import json

    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(result)


def _failure(error: BaseException) -> Failed:
    if isinstance(error, TimeoutError):
        return Failed("timeout")
    if not isinstance(error, Exception):
        raise error
    return Failed(f"{type(error).__name__}: {error}"[:500])


def _unknown(effect: Act, tools: Tools) -> Failed:
    return Failed(f"no tool {effect.tool!r}; there are: {', '.join(sorted(tools)) or 'none'}")


__all__ = ["Act", "Answer", "Ask", "Awaitable", "Failed", "Steps", "Tools", "adrive", "drive", "gathered", "shown"]
