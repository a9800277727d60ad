"""The async half of a sync class: the same work, in a thread. A caller that goes away leaves it to end by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(work: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method, to be awaited."""

    @wraps(work)
    async def awaited(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, self, *args, **kwargs)

    return awaited


async def each_in_thread(found: Iterator[T]) -> AsyncIterator[T]:
    """What an iterator gives, each piece fetched in a thread."""
    end: Any = object()
    while (one := await asyncio.to_thread(next, found, end)) is not end:
        yield one
