"""How small a text shall become: so many tokens, a share of them, or as small as its quality allows."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from ctxmem.compressors.content import Content
from ctxmem.errors import InvalidInput
from ctxmem.types import Budget


@dataclass(frozen=True, slots=True)
class Tokens:
    """At most `number` tokens of the target model.

    Raises:
        InvalidInput: not a whole number of at least 1.
    """

    number: int

    def __post_init__(self) -> None:
        Budget(self.number)

    def allow(self, before: int, kind: Content) -> int:
        """Tokens allowed, whatever the text had and is."""
        del before, kind
        return self.number


@dataclass(frozen=True, slots=True)
class Ratio:
    """At most this share of the tokens, in (0, 1].

    Raises:
        InvalidInput: not such a share.
    """

    share: float

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise InvalidInput(f"ratio must be a share in (0, 1], got {self.share!r}", param="ratio")

    def allow(self, before: int, kind: Content) -> int:
        """Tokens allowed of a text that had `before`."""
        del kind
        return int(self.share * before)


@dataclass(frozen=True, slots=True)
class Quality:
    """As few tokens as keep the loss under `drift`: nats by which each token of a right answer may become less likely.

    Raises:
        InvalidInput: not a finite number above 0.
    """

    drift: float

    def __post_init__(self) -> None:
        good = isinstance(self.drift, int | float) and not isinstance(self.drift, bool)
        if not good or not isfinite(self.drift) or self.drift <= 0:
            raise InvalidInput(f"quality must be a loss above 0 nats, got {self.drift!r}", param="quality")

    def allow(self, before: int, kind: Content) -> int:
        """Tokens allowed, by the smallest measured share whose drift is at most this."""
        table = DRIFT.get(kind, ())
        share = next((share for share, drift in table if drift <= self.drift), 1.0)
        return int(share * before)


Spend = Tokens | Ratio | Quality
"""Any of the three."""

DRIFT: dict[Content, tuple[tuple[float, float], ...]] = {
    "prose": ((0.35, 0.7), (0.5, 0.26), (0.65, 0.12), (0.8, 0.05)),
    "log": ((0.35, 0.7), (0.5, 0.26), (0.65, 0.12), (0.8, 0.05)),
}
"""By kind of text, smallest share first: share kept, and by how many nats an answer's tokens get less likely."""


def spend(budget: int | Spend | None = None, *, ratio: float | None = None) -> Spend:
    """The budget that is meant by a number of tokens, by a share, or by itself.

    Raises:
        InvalidInput: both or none are given, or one is out of range.
    """
    if (budget is None) == (ratio is None):
        raise InvalidInput("give a budget or a ratio, one of them", param="budget")
    if ratio is not None:
        return Ratio(ratio)
    return budget if isinstance(budget, Tokens | Ratio | Quality) else Tokens(budget)  # type: ignore[arg-type]
