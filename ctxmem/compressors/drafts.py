"""A text with its units ranked, its rendering with only the best of them, and the search for how many a budget holds.

Knows nothing of what the ranking means.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from ctxmem.compressors.units import Unit

CLOSE_ENOUGH = 200
"""The search ends once less than this part of the budget is left over."""

SKIPS = 4
"""How many units too long for the rest of the budget are passed over."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A text, its units, and the order in which they are worth keeping.

    Attributes:
        text: the source.
        units: what it is made of.
        ranking: indexes of the text units, best first.
    """

    text: str
    units: list[Unit]
    ranking: list[int]

    def chosen(self, number: int) -> list[bool]:
        """By unit, whether it stays when the best `number` are kept; frames stay with what they frame."""
        stays = [unit.kind == "hard" for unit in self.units]
        for i in self.ranking[:number]:
            stays[i] = True
        inside = list(accumulate(stays, initial=0))
        for i, unit in enumerate(self.units):
            if unit.kind == "frame":
                first, last = unit.scope
                stays[i] = inside[last] > inside[first]
        return stays

    def render(self, number: int) -> str:
        """The source with only the best `number` units, slices of the source all of it.

        A gap collapses to the strongest whitespace in it, most newlines first, and to none before a full stop or
        bracket that touched its word.
        """
        pieces: list[str] = []
        gap = ""
        for unit, stays in zip(self.units, self.chosen(number), strict=True):
            space = self.text[unit.start : unit.body]
            gap = max(space, gap, key=_strength)
            if not stays:
                continue
            body = self.text[unit.body : unit.end]
            touches = unit.kind == "frame" and not space and body
            if not touches and (pieces or unit.start == 0):
                pieces.append(gap)
            pieces.append(body)
            gap = ""
        return "".join(pieces)

    def dropped(self, number: int) -> tuple[tuple[int, int], ...]:
        """Source spans left out when the best `number` units are kept, neighbours as one."""
        spans: list[tuple[int, int]] = []
        for unit, stays in zip(self.units, self.chosen(number), strict=True):
            if stays or unit.body == unit.end:
                continue
            if spans and spans[-1][1] == unit.start:
                spans[-1] = (spans[-1][0], unit.end)
            else:
                spans.append((unit.body, unit.end))
        return tuple(spans)


@dataclass(slots=True)
class Search:
    """Looks for the most units whose rendering holds the budget, by interpolation between measured renderings.

    Only a rendering that was counted is ever the answer, so the budget is a guarantee.

    Attributes:
        draft: what is searched.
        budget: tokens the rendering may take.
        before: tokens of the source.
        kept: the most units known to fit; -1 before any.
        over: the fewest units known not to fit.
        best: rendering of `kept`.
        best_tokens: its tokens.
        over_tokens: tokens of the rendering of `over`.
        sizes: characters of the best units, summed up.
        asked: units of the rendering that is being counted.
        probes: renderings counted so far.
        skips: units passed over because they were too long for what was left.
    """

    draft: Draft
    budget: int
    before: int
    kept: int = -1
    over: int = 0
    best: str | None = None
    best_tokens: int = 0
    over_tokens: int = 0
    sizes: list[int] = field(default_factory=list)
    asked: int = 0
    probes: int = 0
    skips: int = 0

    def __post_init__(self) -> None:
        self._open(len(self.draft.ranking))

    def probe(self) -> str | None:
        """The next rendering to count; None when the search is over."""
        close = self.best is not None and self.budget - self.best_tokens <= self.budget // CLOSE_ENOUGH
        if self.before <= self.budget or close:
            return None
        if self.over - self.kept <= 1 and not self._skip():
            return None
        self.asked = self._guess()
        self.probes += 1
        return self.draft.render(self.asked)

    def tell(self, text: str, tokens: int) -> None:
        """Take the count of the last probe."""
        if tokens <= self.budget:
            self.kept, self.best, self.best_tokens = self.asked, text, tokens
        else:
            self.over, self.over_tokens = self.asked, tokens

    def _skip(self) -> bool:
        """Pass over the unit that did not fit, for those behind it; False when there is none or enough were passed."""
        ranking = self.draft.ranking
        if not 0 <= self.kept < len(ranking) - 1 or self.skips == SKIPS:
            return False
        self.skips += 1
        del ranking[self.kept]
        self._open(len(ranking) + 1)
        return True

    def _open(self, over: int) -> None:
        """Start to look anew below `over`."""
        units = self.draft.units
        self.sizes = list(accumulate((units[i].end - units[i].start for i in self.draft.ranking), initial=0))
        self.over, self.over_tokens = over, self.before

    def _guess(self) -> int:
        """Where tokens would cross the budget if they grew evenly; every third time the middle, which always halves."""
        low = max(0, self.kept)
        if self.probes % 3 == 2:
            return (low + self.over) // 2 if self.kept >= 0 else self.over // 2
        share = (self.budget - self.best_tokens) / max(1, self.over_tokens - self.best_tokens)
        size = self.sizes[low] + share * (self.sizes[min(self.over, len(self.sizes) - 1)] - self.sizes[low])
        return min(max(bisect_right(self.sizes, size) - 1, self.kept + 1), self.over - 1)


def _strength(space: str) -> tuple[int, bool]:
    return space.count("\n"), bool(space)
