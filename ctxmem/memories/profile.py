"""What is known about a user, in one small picture: what is settled, what is liked, and what was told last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctxmem.memory import Memory

MOST_RECENT = 10
"""Memories without a topic that a profile shows."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A user as the memories show them.

    Attributes:
        user_id: the user.
        version: of the newest change to their memories.
        settled: memories that hold one value of something, newest of each topic, by topic.
        recent: the newest of the others, newest first.
        total: memories that hold now.
    """

    user_id: str
    version: int
    settled: tuple[Memory, ...]
    recent: tuple[Memory, ...]
    total: int

    def text(self) -> str:
        """The profile as lines, each under its memory's handle."""
        lines = [f"[{one.id}] {one.text}" for one in (*self.settled, *self.recent)]
        return "\n".join(lines)


def profile(user_id: str, version: int, memories: Iterable[Memory], now: float) -> Profile:
    """The profile of a user.

    Args:
        user_id: the user.
        version: of their newest change.
        memories: all of theirs.
        now: seconds since 1970.
    """
    alive = sorted((one for one in memories if one.holds(None, now)), key=lambda one: (one.valid_from, one.id))
    settled = {one.topic: one for one in alive if one.topic}
    others = [one for one in alive if not one.topic]
    by_topic = tuple(settled[name] for name in sorted(settled))
    return Profile(user_id, version, by_topic, tuple(reversed(others[-MOST_RECENT:])), len(alive))
