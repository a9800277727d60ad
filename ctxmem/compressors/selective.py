"""Selective Context: leave out the phrases that tell the model least.

Li et al. 2023, "Compressing Context to Enhance Inference Efficiency of Large Language Models" (arXiv 2310.06201): each
unit's self-information under a causal language model, summed over its tokens (eq. 2), decides whether it stays. What
differs from the authors' code is in `ctxmem.compressors.prune`; and a decision is made once for each text, on its own,
never by a percentile over the conversation, so that text sent before is never rewritten because text was appended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ctxmem.compressors import content, eligible
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.prune import MIN_SAVED, Prune, Pruned
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.structured import is_json, prune_json, scored
from ctxmem.compressors.units import UnitName
from ctxmem.errors import InvalidInput, ModelError, Unavailable
from ctxmem.plan import ContextPlan
from ctxmem.ports import Counter, Scorer, TokenScores
from ctxmem.types import Segment

CHARACTERS_PER_SECOND = 500_000
"""Pace of pruning itself, for the deadline."""

_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class SelectiveContext:
    """Prunes tool results as they arrive, or, given a target, history at an epoch.

    A segment that is already a shortened form, from this plan or from an earlier request, is not taken up again: so
    no text is pruned twice.

    Attributes:
        scorer: gives self-information.
        fallback: scores when the scorer would miss the deadline or is out of reach.
        keep: share of a text's tokens that stays.
        min_tokens: tokens of the shortest text worth pruning; logs on arrival: half of it.
        deadline: seconds that scoring, and then pruning, may take by their estimates; None for no limit.
        target: share of the budget at which an epoch stops pruning, oldest first; None on arrival.
        unit: what stays or goes as one in prose; logs go by lines.
        step: name of its decisions.

    Raises:
        InvalidInput: `keep` or `target` is not in (0, 1].
    """

    scorer: Scorer
    fallback: Scorer = Lexical()  # noqa: RUF009 - frozen
    keep: float = 0.5
    min_tokens: int = 300
    deadline: float | None = 0.15
    target: float | None = None
    unit: UnitName = "phrase"
    step: str = "selective"

    def __post_init__(self) -> None:
        for name, share in (("keep", self.keep), ("target", self.target if self.target is not None else 1.0)):
            if isinstance(share, bool) or not 0 < share <= 1:
                raise InvalidInput(f"{name} must be a share in (0, 1], got {share!r}", param=name)

    def __call__(self, plan: ContextPlan) -> ContextPlan:
        """The plan with the texts shortened that may be; the rest as it was."""
        chosen = self._chosen(plan)
        segments = self._in_time(chosen)
        if len(segments) < len(chosen):
            plan = plan.skip(step=self.step, why=f"deadline: {len(chosen) - len(segments)} left as they were")
        if not segments:
            return plan
        texts = [segment.text for segment in segments]
        scores, scored_by = scored(texts, self._scores)
        prune = Prune(self.unit, min_saved=min(MIN_SAVED, self.min_tokens // 3))
        outcomes = prune_by_content(prune, texts, scores, self._share, plan.count)
        return self._applied(plan, segments, outcomes, scored_by)

    def _chosen(self, plan: ContextPlan) -> list[Segment]:
        """What to prune: all that arrived, or as much of the history as the target seems to take."""
        if self.target is None:
            return eligible.arrivals(plan, self.min_tokens)
        excess = plan.tokens - self.target * plan.budget.limit
        segments = eligible.history(plan, self.min_tokens) if excess > 0 else []
        savings = accumulate(segment.tokens * (1 - self.keep) for segment in segments)
        enough = (i for i, saved in enumerate(savings, 1) if saved >= excess * _MARGIN)
        return segments[: next(enough, len(segments))]

    def _in_time(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The first segments whose pruning takes no longer than the deadline."""
        if self.deadline is None:
            return segments
        size = int(self.deadline * CHARACTERS_PER_SECOND)
        sizes = accumulate(len(segment.text) for segment in segments)
        return [segment for segment, total in zip(segments, sizes, strict=True) if total <= size]

    def _scores(self, texts: Sequence[str]) -> tuple[list[TokenScores], str]:
        """Scores of all texts in one call, and by what."""
        if self.deadline is None or self.scorer.seconds(texts) <= self.deadline:
            try:
                return self.scorer.score(texts, deadline=self.deadline), self.scorer.name
            except (Unavailable, ModelError) as error:
                reason = f"{self.scorer.name}: {error}"
        else:
            reason = f"{self.scorer.name} would miss {self.deadline} s"
        return self.fallback.score(texts), f"{self.fallback.name} ({reason})"

    def _share(self, tokens: int) -> int:
        return int(self.keep * tokens)

    def _applied(
        self, plan: ContextPlan, segments: Sequence[Segment], outcomes: Sequence[Pruned], scored_by: str
    ) -> ContextPlan:
        """One rewrite for all that were pruned, oldest first until the target is met; one skip for each refusal."""
        excess = plan.tokens - (self.target * plan.budget.limit if self.target is not None else 0)
        texts: dict[str, str] = {}
        refused: dict[str, int] = defaultdict(int)
        for segment, outcome in zip(segments, outcomes, strict=True):
            if outcome.refusal:
                refused[outcome.refusal] += 1
            elif excess > 0:
                texts[segment.id] = outcome.text
                excess -= outcome.tokens_before - outcome.tokens_after
        if texts:
            why = f"kept the most informative {self.keep:.0%}, scored by {scored_by}"
            plan = plan.rewrite(texts, step=self.step, why=why)
        for refusal, number in sorted(refused.items()):
            plan = plan.skip(step=self.step, why=f"{refusal}: {number} left as they were")
        return plan


def prune_by_content(
    prune: Prune,
    texts: Sequence[str],
    scores: Sequence[TokenScores],
    keep: Callable[[int], int],
    count: Counter,
    question: Question | None = None,
) -> list[Pruned]:
    """Prune each text: JSON by its structure, logs by lines, the rest by the unit of `prune`; see `Prune.__call__`."""
    outcomes: dict[int, Pruned] = {}
    for i, text in enumerate(texts):
        if is_json(text):
            outcomes[i] = prune_json(text, keep(count.texts([text])[0]), count, prune, question)
    units: list[UnitName] = ["block" if content.kind(text) == "log" else prune.unit for text in texts]
    for unit in dict.fromkeys(units):
        places = [i for i, its in enumerate(units) if its == unit and i not in outcomes]
        same = replace(prune, unit=unit)
        found = same([texts[i] for i in places], [scores[i] for i in places], keep, count, question)
        outcomes.update(zip(places, found, strict=True))
    return [outcomes[i] for i in range(len(texts))]
