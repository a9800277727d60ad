"""Score-based pruning, once for every method that scores: cut into units, rank them, keep as many as the budget holds.

What sets this apart from the published Selective Context code (Li et al. 2023, "Compressing Context to Enhance
Inference Efficiency of Large Language Models", eq. 2): a unit's self-information is the *sum* over its tokens, as in
the paper's formula and not the mean as in its code; words that stand out get a bonus; the budget is met exactly in the
target model's own tokens; and a result that saves little or breaks something is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ctxmem.compressors import protect
from ctxmem.compressors.drafts import Draft, Search
from ctxmem.compressors.ranking import Weights, worth
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.units import SPLITS, UnitName
from ctxmem.ports import Counter, TokenScores

Refusal = Literal[
    "", "within_budget", "nothing_to_prune", "hard_spans_over_budget", "budget_too_small", "no_gain", "unbalanced"
]
"""Why a text stayed as it was; empty when it was pruned."""

MIN_SAVED = 32


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
        weights: what makes a unit worth keeping.
        min_saved: tokens a pruning must save to be worth it.
        min_share: share of the text it must save.
    """

    unit: UnitName = "phrase"
    weights: Weights = field(default_factory=Weights)
    min_saved: int = MIN_SAVED
    min_share: float = 0.08

    def __call__(
        self,
        texts: Sequence[str],
        scores: Sequence[TokenScores],
        keep: Callable[[int], int],
        count: Counter,
        question: Question | None = None,
    ) -> list[Pruned]:
        """Prune each text on its own.

        All texts are counted together, in about ten calls of the counter however many there are.

        Args:
            texts: the sources.
            scores: self-information of each.
            keep: from a text's tokens, the tokens it may keep.
            count: counts in the target model's tokens.
            question: what they will be asked; None when nobody knows.
        """
        before = count.texts(texts)
        searches = [
            Search(self._draft(text, score, keep(tokens) / max(1, tokens), question), keep(tokens), tokens)
            for text, score, tokens in zip(texts, scores, before, strict=True)
        ]
        while asked := [(search, text) for search in searches if (text := search.probe()) is not None]:
            for (search, text), tokens in zip(asked, count.texts([text for _, text in asked]), strict=True):
                search.tell(text, tokens)
        return [self._judged(search) for search in searches]

    def _draft(self, text: str, scores: TokenScores, share: float, question: Question | None) -> Draft:
        if share >= 1:
            return Draft(text, [], [])
        found = worth(text, SPLITS[self.unit](text), scores, self.weights, phrases=self.unit == "phrase")
        ranking = (
            found.ranking_for(question, share, self.weights.relevance) if question is not None else found.ranking()
        )
        return Draft(text, found.units, ranking)

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
