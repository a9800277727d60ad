"""What models do for the core: count tokens, score them, embed and rerank texts, complete a conversation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ctxmem.errors import Unavailable
from ctxmem.types import Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Counter(Protocol):
    """Counts prompt tokens of one target model, its chat template and tools included.

    Attributes:
        name: fingerprint of tokenizer and template; equal names count alike.
        exact: whether counts are the model's own; else they are a stated upper estimate.
        window: the model's context window in tokens; None when unknown.
    """

    @property
    def name(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def window(self) -> int | None: ...

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, special-token look-alikes read as plain text."""
        ...

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Tokens each message adds to a rendered request, its share of the template included."""
        ...

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """Tokens of the whole rendered request, generation prompt and tools (JSON array) included."""
        ...


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Self-information of one text, token by token.

    Attributes:
        starts: character offset of each token in the text.
        ends: character offset after each token; neighbours may share a character.
        nats: -ln p(token | everything before it), same length.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    nats: tuple[float, ...]


Scoring = Generator[float, None, list[TokenScores]]
"""Work in steps: the seconds that each is likely to take, then the scores."""


class Scorer(Protocol):
    """Gives the self-information of texts under a language model, or a model-free stand-in for it.

    Attributes:
        name: fingerprint; equal names give equal scores.
    """

    @property
    def name(self) -> str: ...

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds that scoring the texts takes."""
        ...

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Score each text on its own, every token in the context of all before it.

        Args:
            texts: what to score.
            deadline: seconds from now; past it the scorer gives up.

        Raises:
            Unavailable: the deadline passed or the model is out of reach.
        """
        ...


@runtime_checkable
class SteppedScorer(Scorer, Protocol):
    """A scorer that can stop between two steps."""

    def scoring(self, texts: Sequence[str]) -> Scoring:
        """Score in steps: yields, before each, the seconds it is likely to take. Closing it stops the work."""
        ...


def in_time(
    steps: Scoring, deadline: float | None, before: Callable[[float], None] = lambda needed: None
) -> list[TokenScores]:
    """The scores of a scoring in steps.

    Args:
        steps: of a `SteppedScorer`.
        deadline: seconds from now; None for no limit.
        before: told before each step the seconds it is likely to take; what it raises ends the work.

    Raises:
        Unavailable: the scores would not be there in time.
    """
    end = math.inf if deadline is None else time.monotonic() + deadline
    while True:
        try:
            needed = next(steps)
        except StopIteration as done:
            scores: list[TokenScores] = done.value
            return scores
        if time.monotonic() + needed > end:
            raise Unavailable(f"scoring takes about {needed:.2f} s more than its deadline of {deadline} s leaves")
        before(needed)


class Embedder(Protocol):
    """Turns texts into vectors whose inner product says how alike they are.

    Attributes:
        name: fingerprint; equal names give equal vectors, others must never be mixed in one index.
        dimensions: length of a vector.
    """

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(len(texts), dimensions) vectors, L2-normalised.

        Args:
            texts: what to embed.
            query: whether they are questions; some models read those in another way.

        Raises:
            ModelError: the model is broken.
            Unavailable: it is out of reach.
        """
        ...


class Reranker(Protocol):
    """Says how well each text answers a query, reading both together.

    Attributes:
        name: fingerprint; equal names give equal scores.
    """

    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """One score per text, higher is better; comparable within one call only. An empty text gets -inf.

        Args:
            query: what is asked.
            texts: the candidates.
            deadline: seconds from now; past it the reranker gives up.

        Raises:
            ModelError: the model is broken.
            Unavailable: the deadline passed or the model is out of reach.
        """
        ...


@runtime_checkable
class Remembering(Protocol):
    """What a reranker has that remembers scores, those of each tenant apart.

    Attributes:
        remembered: texts whose scores were known, in all that this object was asked.
    """

    @property
    def remembered(self) -> int: ...

    def of(self, tenant: str) -> Reranker:
        """The same reranker for a tenant, an object of its own."""
        ...


def reranker_of(reranker: Reranker | None, tenant: str) -> Reranker | None:
    """The reranker, if there is one, as a tenant may use it."""
    return reranker.of(tenant) if isinstance(reranker, Remembering) else reranker


class Complete(Protocol):
    """Completes a chat: the port behind everything that asks a language model."""

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Yield the answer's text in pieces."""
        ...
