"""What a plan did, for people and for receipts.

Works on values only: the segments before and after, and the decisions between. Nothing is computed twice: the answer to
"why is this text gone" is a look-up in what the verbs wrote down.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass

from ctxmem.types import Decision, Receipt, Segment


@dataclass(frozen=True, slots=True)
class Report:
    """The difference between two states of a plan.

    Attributes:
        before: segments as laid out.
        after: segments as rendered.
        decisions: the edits between, in order.
        receipt: the stored account of the whole request, when a manager made one.
    """

    before: tuple[Segment, ...]
    after: tuple[Segment, ...]
    decisions: tuple[Decision, ...]
    receipt: Receipt | None = None

    @property
    def saved(self) -> int:
        """Tokens the edits took out."""
        return -sum(decision.tokens for decision in self.decisions)

    @property
    def by_step(self) -> dict[str, int]:
        """Tokens taken out by each step, in the order the steps first acted."""
        tally: Tally[str] = Tally()
        for decision in self.decisions:
            tally[decision.step] -= decision.tokens
        return dict(tally)

    @property
    def skipped(self) -> tuple[Decision, ...]:
        """Steps that did nothing, with their reasons."""
        return tuple(decision for decision in self.decisions if decision.action == "skip")

    def why(self, segment_id: str) -> tuple[Decision, ...]:
        """Every edit of one segment, oldest first."""
        return tuple(decision for decision in self.decisions if segment_id in decision.segments)

    def __str__(self) -> str:
        """A table for people: one line a decision."""
        rows = [(d.step, d.action, str(len(d.segments)), f"{d.tokens:+d}", d.why) for d in self.decisions]
        head = ("step", "action", "segments", "tokens", "why")
        return "\n".join(_aligned([head, *rows]))


def stable_prefix(previous: Iterable[tuple[bytes, int]], now: Iterable[tuple[bytes, int]]) -> int:
    """Tokens of the messages that open both requests with the same bytes.

    Args:
        previous: hash and tokens of each message of the request before.
        now: the same of this one.

    >>> stable_prefix([(b"a", 3), (b"b", 4)], [(b"a", 3), (b"c", 9)])
    3
    """
    total = 0
    for (old, _), (new, tokens) in zip(previous, now, strict=False):
        if old != new:
            break
        total += tokens
    return total


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
