"""What a provider with a prefix cache charges for a sequence of prompts.

The provider keeps every prompt it has read for a while. The tokens a new prompt shares with the start of one of them
are read at a discount; the rest is written at full price or a little above. Prices are relative to an uncached input
token, so nothing here depends on a price list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from ctxmem import chat
from ctxmem.ports import Counter

FRAME = 4
"""Tokens that the role and the delimiters of a message take, whatever the model."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the provider charges and how long it remembers.

    Attributes:
        name: whose terms they are.
        read: price of a token read from the cache.
        write: price of a token written to it.
        ttl_s: seconds a prompt is remembered after it was last read.
        minimum: tokens; a shorter prompt is neither cached nor charged for writing.
    """

    name: str
    read: float = 0.1
    write: float = 1.0
    ttl_s: float = 300.0
    minimum: int = 0


OPENAI = Terms("openai")
ANTHROPIC = Terms("anthropic", write=1.25)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of messages, remembered by their bytes.

    Attributes:
        counter: whose tokens.
    """

    counter: Counter
    _texts: dict[bytes, str] = field(default_factory=dict)
    _tokens: dict[bytes, int] = field(default_factory=dict)

    def of(self, raw: bytes) -> int:
        """Tokens of one message or of the tools' JSON."""
        if raw not in self._tokens:
            self._tokens[raw] = self.counter.texts([self.text(raw)])[0] + FRAME
        return self._tokens[raw]

    def total(self, prompt: Sequence[bytes]) -> int:
        """Tokens of a whole prompt."""
        return sum(map(self.of, prompt))

    def shared(self, one: bytes, other: bytes) -> int:
        """Tokens with which both messages start."""
        if one == other:
            return self.of(one)
        start = _common_start(self.text(one), self.text(other))
        return max(0, self.counter.texts([start])[0] - 1) if start else 0

    def text(self, raw: bytes) -> str:
        """What the model reads of a message: role, text, tool calls; the tools' JSON as it is."""
        if raw not in self._texts:
            message = chat.parse(raw) if raw.startswith(b"{") else None
            shown = f"{message.role}\n{''.join(p.text for p in message.parts)}" if message else raw.decode()
            self._texts[raw] = shown
        return self._texts[raw]


@dataclass(frozen=True, slots=True)
class Charge:
    """What one prompt cost.

    Attributes:
        tokens: its size.
        read: how many of them came from the cache.
        cost: in uncached input tokens.
    """

    tokens: int
    read: int
    cost: float


@dataclass(slots=True)
class PrefixCache:
    """The provider's memory of prompts, token by token.

    Attributes:
        terms: prices and lifetime.
        sizes: tokens of messages.
    """

    terms: Terms
    sizes: Sizes
    _used: dict[bytes, float] = field(default_factory=dict)
    _next: dict[bytes, list[bytes]] = field(default_factory=dict)

    def charge(self, prompt: Sequence[bytes], now: float) -> Charge:
        """Price a prompt sent at `now` (seconds), and remember it."""
        total = self.sizes.total(prompt)
        if total < self.terms.minimum:
            return Charge(total, 0, float(total))
        read = self._known(prompt, now)
        self._remember(prompt, now)
        return Charge(total, read, self.terms.read * read + self.terms.write * (total - read))

    def _known(self, prompt: Sequence[bytes], now: float) -> int:
        read, node = 0, b""
        for raw in prompt:
            here = _chain(node, raw)
            if not self._alive(here, now):
                return read + self._partly(node, raw, now)
            read, node = read + self.sizes.of(raw), here
        return read

    def _partly(self, node: bytes, raw: bytes, now: float) -> int:
        """Tokens of a message that some remembered message at its place starts with."""
        rivals = [other for other in self._next.get(node, []) if self._alive(_chain(node, other), now)]
        return max((self.sizes.shared(raw, other) for other in rivals), default=0)

    def _alive(self, node: bytes, now: float) -> bool:
        return now - self._used.get(node, float("-inf")) <= self.terms.ttl_s

    def _remember(self, prompt: Sequence[bytes], now: float) -> None:
        node = b""
        for raw in prompt:
            here = _chain(node, raw)
            if here not in self._used:
                self._next.setdefault(node, []).append(raw)
            self._used[here] = now
            node = here


def _chain(node: bytes, raw: bytes) -> bytes:
    return blake2b(node + raw, digest_size=16).digest()


def _common_start(one: str, other: str) -> str:
    differs = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if differs is None else differs]
