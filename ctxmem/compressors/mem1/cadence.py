"""When to consolidate: every turn (the paper), every k turns, past w tokens, or when it is cheapest.

`auto` prices both sides in uncached input tokens. Between consolidations the raw turns are only appended, so a provider
with a prefix cache reads them at its discount r: a tail that grows by g tokens a turn costs r g n / 2 a turn when it is
cut every n turns. A consolidation costs K = p_out * (tokens written) + (w - r) * (state tokens that change). The sum
K / n + r g n / 2 is least at n* = sqrt(2 K / (r g)), a tail of n* g = sqrt(2 K g / r) tokens (the economic order
quantity, Harris 1913). Near the end of a task it waits: what is left must save more than K.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import Literal

from ctxmem.errors import InvalidInput
from ctxmem.ledger import CacheTerms

_FORM = re.compile(r"every_turn|auto|every=(\d{1,6})|tokens>(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a tail of raw turns becomes state.

    Attributes:
        kind: how it is decided.
        number: turns for `every`, tokens for `tokens`.
        terms: how the upstream prices its prompt cache, for `auto`.
        output: price of an output token, relative to an uncached input token; 0 when no model writes the state.
        written: output tokens of one update.
        cap: tokens of the tail past which `auto` consolidates whatever it costs.
    """

    kind: Literal["every_turn", "every", "tokens", "auto"] = "auto"
    number: int = 0
    terms: CacheTerms = field(default_factory=CacheTerms)
    output: float = 5.0
    written: int = 120
    cap: int = 2400

    def due(self, *, turns: int, tokens: int, state: int, remaining: float = inf) -> bool:
        """Whether to consolidate now.

        Args:
            turns: turns in the tail.
            tokens: tokens of the tail.
            state: tokens of the state's rendering.
            remaining: turns still expected.
        """
        if turns < 1 or self.kind == "every_turn":
            return turns > 0
        if self.kind == "auto":
            return tokens > self.cap or self._pays(turns, tokens, state, remaining)
        return turns >= self.number if self.kind == "every" else tokens > self.number

    def largest(self, turn: int) -> int:
        """Tokens that the tail is never larger than when it is consolidated, given those of the largest turn."""
        most = {"every_turn": 0, "every": (self.number - 1) * turn, "tokens": self.number, "auto": self.cap}
        return most[self.kind] + turn

    def _pays(self, turns: int, tokens: int, state: int, remaining: float) -> bool:
        cached = self.terms.kind != "none"
        read, write = (self.terms.read, self.terms.write) if cached else (1.0, 1.0)
        price = self.output * self.written + (write - read) * (state + self.written)
        best = sqrt(2 * price * (tokens / turns) / max(read, 1e-6))
        return tokens >= best and read * tokens * remaining > price


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
