"""Score-based pruning, once for every method that scores: cut into units, rank them, keep as many as the budget holds.

What sets this apart from the published Selective Context code (Li et al. 2023, "Compressing Context to Enhance
Inference Efficiency of Large Language Models", eq. 2): a unit's self-information is the *sum* over its tokens, as in
the paper's formula and not the mean as in its code; words that stand out get a bonus; the budget is met exactly in the
target model's own tokens; and a result that saves little or breaks something is refused.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

from ctxmem.compressors import protect
from ctxmem.compressors.drafts import Draft, Search
from ctxmem.compressors.units import PHRASE_WORDS, SPLITS, Unit, UnitName
from ctxmem.compressors.words import salience
from ctxmem.ports import Counter, TokenScores

Refusal = Literal[
    "", "within_budget", "nothing_to_prune", "hard_spans_over_budget", "budget_too_small", "no_gain", "unbalanced"
]
"""Why a text stayed as it was; empty when it was pruned."""

MIN_SAVED = 32
SHINGLE = 3
REDUNDANT = 0.25
_DIGIT = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Pruned:
    """One text after pruning.

    Attributes:
        text: what is left; the source itself when refused.
        tokens_before: tokens of the source.
        tokens_after: tokens of `text`.
        dropped: spans of the source that were left out, by character offsets.
        refusal: why the text stayed as it was; empty when it was pruned.
    """

    text: str
    tokens_before: int
    tokens_after: int
    dropped: tuple[tuple[int, int], ...] = ()
    refusal: Refusal = ""


@dataclass(frozen=True, slots=True)
class Prune:
    """How texts are pruned.

    Attributes:
        unit: what is kept or dropped as one.
        salience: weight of the words that stand out, against self-information; both in standard deviations.
        soft: bonus of a unit of weight 1 (a number, an error line), in standard deviations.
        min_saved: tokens a pruning must save to be worth it.
        min_share: share of the text it must save.
    """

    unit: UnitName = "phrase"
    salience: float = 1.0
    soft: float = 1.0
    min_saved: int = MIN_SAVED
    min_share: float = 0.08

    def __call__(
        self, texts: Sequence[str], scores: Sequence[TokenScores], keep: Callable[[int], int], count: Counter
    ) -> list[Pruned]:
        """Prune each text on its own.

        All texts are counted together, in about ten calls of the counter however many there are.

        Args:
            texts: the sources.
            scores: self-information of each.
            keep: from a text's tokens, the tokens it may keep.
            count: counts in the target model's tokens.
        """
        before = count.texts(texts)
        searches = [
            Search(self._draft(text, score), keep(tokens), tokens)
            for text, score, tokens in zip(texts, scores, before, strict=True)
        ]
        while asked := [(search, text) for search in searches if (text := search.probe()) is not None]:
            for (search, text), tokens in zip(asked, count.texts([text for _, text in asked]), strict=True):
                search.tell(text, tokens)
        return [self._judged(search) for search in searches]

    def _draft(self, text: str, scores: TokenScores) -> Draft:
        units = SPLITS[self.unit](text)
        return Draft(text, units, _ranking(units, self._scores(units, scores)))

    def _scores(self, units: Sequence[Unit], scores: TokenScores) -> list[float]:
        """By unit: S = U / sd(U) + a Sal / sd(Sal) + b soft."""
        nats = _sums(units, scores)
        stand_out = [sum(map(salience, unit.words)) for unit in units]
        prunable = [i for i, unit in enumerate(units) if unit.kind == "text"]
        per_nat = 1.0 / _spread([nats[i] for i in prunable])
        per_salience = self.salience / _spread([stand_out[i] for i in prunable])
        return [
            nat * per_nat + out * per_salience + self.soft * unit.weight
            for unit, nat, out in zip(units, nats, stand_out, strict=True)
        ]

    def _judged(self, search: Search) -> Pruned:
        """The acceptance gate: what was found, or the source with the reason."""
        source, before = search.draft.text, search.before
        refusal: Refusal = ""
        if before <= search.budget:
            refusal = "within_budget"
        elif all(unit.kind == "frame" for unit in search.draft.units):
            refusal = "nothing_to_prune"
        elif search.best is None:
            refusal = "hard_spans_over_budget"
        elif not search.best.strip():
            refusal = "budget_too_small"
        elif before - search.best_tokens < max(self.min_saved, self.min_share * before):
            refusal = "no_gain"
        elif not protect.balanced(source, search.best):
            refusal = "unbalanced"
        if refusal or search.best is None:
            return Pruned(source, before, before, refusal=refusal)
        return Pruned(search.best, before, search.best_tokens, search.draft.dropped(search.kept))


def _ranking(units: Sequence[Unit], scores: Sequence[float]) -> list[int]:
    """Text units, best first, ties by position; one that only repeats what came before it is put further back."""
    heap = [(-scores[i], i) for i, unit in enumerate(units) if unit.kind == "text"]
    heapq.heapify(heap)
    ranking: list[int] = []
    seen: set[tuple[str, ...]] = set()
    discounted: set[int] = set()
    while heap:
        score, i = heapq.heappop(heap)
        shingles = _shingles(units[i])
        if shingles and i not in discounted and shingles <= seen:
            discounted.add(i)
            heapq.heappush(heap, (score * REDUNDANT, i))
            continue
        seen |= shingles
        ranking.append(i)
    return ranking


def _shingles(unit: Unit) -> set[tuple[str, ...]]:
    """Runs of three words; in lines and sentences all digits are alike, so that a log's lines can repeat each other."""
    words = [word.casefold() for word in unit.words]
    if len(words) > PHRASE_WORDS:
        words = [_DIGIT.sub("0", word) for word in words]
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def _sums(units: Sequence[Unit], scores: TokenScores) -> list[float]:
    """Self-information of each unit: the sum over its tokens, in nats. A token belongs where its last character is."""
    sums = [0.0] * len(units)
    at = 0
    for end, nats in zip(scores.ends, scores.nats, strict=True):
        while at < len(units) - 1 and units[at].end < end:
            at += 1
        if units and isfinite(nats):
            sums[at] += nats
    return sums


def _spread(values: Sequence[float]) -> float:
    """Standard deviation; 1 when there is none."""
    if not values:
        return 1.0
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values)) or 1.0
