"""Whole messages: what was said at once is found and read together.

A statement alone may be beside the point that its message makes: evidence of a question is seldom one sentence of it.
So a message is worth the mean of its best statement and of all of its statements, and what holds of it is given in the
order in which it was said: nothing that was deleted since, that is no longer true, or that a filter leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean

from ctxmem.memories.asked import Hit
from ctxmem.memory import Memory


def together(hits: Iterable[Hit], open_to: Mapping[str, Memory]) -> list[Hit]:
    """One hit for each message of which a statement was found; a memory that names no source stands alone.

    Args:
        hits: statements with their scores.
        open_to: all that might have been found, by id; what was not found scores 0.
    """
    found = {hit.memory.id: hit for hit in hits}
    said: dict[str, list[Memory]] = {}
    for memory in open_to.values():
        said.setdefault(_message(memory), []).append(memory)
    return [_read(told, found) for told in said.values() if any(one.id in found for one in told)]


def _read(told: list[Memory], found: Mapping[str, Hit]) -> Hit:
    """A message, by the statements of it that hold."""
    best = max((found[one.id] for one in told if one.id in found), key=lambda hit: hit.score)
    mean = fmean(found[one.id].score if one.id in found else 0.0 for one in told)
    return replace(best, score=(best.score + mean) / 2, beside=tuple(sorted(told, key=_place)))


def _message(memory: Memory) -> str:
    return memory.sources[0].event_id if memory.sources else memory.id


def _place(memory: Memory) -> tuple[int, str]:
    return (memory.sources[0].start if memory.sources else 0), memory.id
