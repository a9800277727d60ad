"""When to consolidate: every turn (the paper), every k turns, past w tokens, or when it is cheapest within a room.

`auto` prices both sides in uncached input tokens. Between consolidations the raw turns are only appended, so a provider
with a prefix cache reads them at its discount r: a tail that grows by g tokens a turn costs r g n / 2 a turn when it is
cut every n turns. A consolidation costs K = p_out * (tokens written) + (w - r) * (state tokens that change). The sum
K / n + r g n / 2 is least at n* = sqrt(2 K / (r g)), a tail of n* g = sqrt(2 K g / r) tokens (the economic order
quantity, Harris 1913), or less where that is more than the room that state and tail have together: past it peaks would
grow with the task. And the task as a whole must come out no dearer than with all of its turns kept: what was saved so
far, and what is still expected to be, must pay for K (`Course`). So a short task is left alone, and the end of a long
one is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

from ctxmem.errors import InvalidInput
from ctxmem.ledger import CacheTerms

_FORM = re.compile(r"every_turn|auto|every=(\d{1,6})|tokens>(\d{1,9})")

HALF = 0.5
"""Of the turns that a task may still take, those that are counted on: it ends anywhere before the last."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a tail of raw turns becomes state.

    Attributes:
        kind: how it is decided.
        number: turns for `every`, tokens for `tokens`.
        terms: how the upstream prices its prompt cache, for `auto`.
        output: price of an output token, relative to an uncached input token; 0 when no model writes the state.
        written: output tokens of one update, of which many go by lines.
        cap: tokens that state, tail and a next turn like the largest so far have together in `auto`, where it pays;
            a tail that is larger alone is consolidated whatever it costs.
    """

    kind: Literal["every_turn", "every", "tokens", "auto"] = "auto"
    number: int = 0
    terms: CacheTerms = field(default_factory=CacheTerms)
    output: float = 5.0
    written: int = 40
    cap: int = 2400

    def due(self, now: Now) -> bool:
        """Whether to consolidate now."""
        if now.turns < 1 or self.kind == "every_turn":
            return now.turns > 0
        if self.kind == "auto":
            full = now.state + now.tokens + now.course.largest > self.cap or now.tokens >= self._best(now)
            return now.tokens > self.cap or (full and self._pays(now))
        return now.turns >= self.number if self.kind == "every" else now.tokens > self.number

    @property
    def read(self) -> float:
        """What a token costs that was in the prompt before."""
        return self.terms.read if self.terms.kind != "none" else 1.0

    def price(self, state: int) -> float:
        """What a consolidation costs: K above, for a state of so many tokens."""
        write = self.terms.write if self.terms.kind != "none" else 1.0
        return self.output * self.written + (write - self.read) * (state + self.written)

    def largest(self, turn: int) -> int:
        """Tokens that the tail is never larger than when it is consolidated, given those of the largest turn."""
        most = {"every_turn": 0, "every": (self.number - 1) * turn, "tokens": self.number, "auto": self.cap}
        return most[self.kind] + turn

    def _best(self, now: Now) -> float:
        return sqrt(2 * self.price(now.state) * (now.tokens / now.turns) / max(self.read, 1e-6))

    def _pays(self, now: Now) -> bool:
        """Whether the whole task is still expected to be no dearer than with all of its turns in the prompt."""
        ahead = self.read * (now.course.dropped + now.tokens) * HALF * now.remaining
        return now.course.saved + ahead > self.price(now.state)


@dataclass(slots=True)
class Course:
    """How a session has gone so far, against one whose prompts keep every turn.

    Attributes:
        when: prices.
        largest: tokens of the largest turn; the next may be as large.
        dropped: tokens of raw turns that have left the prompt.
        saved: in uncached input tokens; negative while consolidations have not paid yet.
    """

    when: Cadence
    largest: int = 0
    dropped: int = 0
    saved: float = 0.0

    def turn(self, tokens: int) -> None:
        """One more turn, of so many tokens, and one more prompt without what was dropped."""
        self.largest = max(self.largest, tokens)
        self.saved += self.when.read * self.dropped

    def cut(self, tokens: int, state: int) -> None:
        """A consolidation of a tail of `tokens` into a state of `state` tokens."""
        self.dropped += tokens
        self.saved -= self.when.price(state)


@dataclass(frozen=True, slots=True)
class Now:
    """Where a session is when it is asked whether to consolidate.

    Attributes:
        turns: turns in the tail.
        tokens: tokens of the tail.
        state: tokens of the state's rendering.
        remaining: turns that may still come.
        course: what was before.
    """

    turns: int
    tokens: int
    state: int
    remaining: float
    course: Course


def cadence(text: str, *, cap: int, terms: CacheTerms | None = None, output: float = 5.0) -> Cadence:
    """The cadence behind a setting.

    Args:
        text: `every_turn`, `every=8`, `tokens>2400` or `auto`.
        cap: tokens of the tail past which `auto` consolidates.
        terms: prices of the upstream's prompt cache.
        output: price of an output token, in uncached input tokens.

    Raises:
        InvalidInput: it is none of them.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    number = int(match[1] or match[2] or 0) if match else 0
    if match is None or (not number and "=" in text) or (not number and ">" in text):
        raise InvalidInput(f"cadence must be every_turn, every=k, tokens>w or auto; got {text!r}", param="cadence")
    kind: Literal["every_turn", "every", "tokens", "auto"] = (
        "every" if match[1] else "tokens" if match[2] else "auto" if text == "auto" else "every_turn"
    )
    return Cadence(kind, number, terms or CacheTerms(), output, cap=cap)
