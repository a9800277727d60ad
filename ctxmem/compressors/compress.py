"""Compress a text or a conversation once, without a session: what goes in is forgotten when the answer is out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxmem import chat
from ctxmem.compressors import content, eligible
from ctxmem.compressors.budgets import Spend, spend
from ctxmem.compressors.decisions import Decisions
from ctxmem.compressors.fit import Fit
from ctxmem.compressors.outcome import Compressed, Cut
from ctxmem.compressors.prune import Prune
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.selective import prune_by_content
from ctxmem.compressors.structured import is_json, scored
from ctxmem.compressors.units import SPLITS, UnitName
from ctxmem.compressors.watched import Progress, Watched
from ctxmem.errors import BudgetError, InvalidInput, ModelError, Unavailable
from ctxmem.plan import ContextPlan, layout
from ctxmem.ports import Counter, Embedder, Scorer, TokenScores
from ctxmem.types import Budget, Message

Cuts = Mapping[str, tuple[tuple[int, int], ...]]
"""By segment, the spans of its text that were left out."""

_SHORTEST = 24
_LEAST_KEPT = 0.33
_OLDEST = "oldest"
_NO_TEXT = ("tool_call", "opaque")
"""Kinds of segments whose characters are not counted."""


@dataclass(frozen=True, slots=True)
class Compressor:
    """How texts and messages are compressed: all that stays the same from call to call.

    A text is pruned by its units. Of messages, old user turns and tool results are pruned first; then whole turns
    leave, oldest first. What cannot be brought under the budget comes back unchanged, with the reason.

    Attributes:
        counter: counts in the target model's tokens; messages with their chat template.
        scorer: gives self-information.
        fallback: scores when the scorer is out of reach or would miss the deadline; None: being out of reach is an
            error.
        embedder: finds what has to do with a query; None: by its words alone.
        unit: what stays or goes as one.
        deadline: seconds that scoring may take; None for no limit.
        decisions: texts that were compressed before come from there; None: everything is worked out each time.
        progress: told how far scoring is, see `Watched`; what it raises, unless it is one of ctxmem's own errors, ends
            the work and reaches the caller, and nothing is kept of it.

    Raises:
        InvalidInput: an unknown unit.
    """

    counter: Counter
    scorer: Scorer
    fallback: Scorer | None = None
    embedder: Embedder | None = None
    unit: UnitName = "phrase"
    deadline: float | None = None
    decisions: Decisions | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.unit not in SPLITS:
            raise InvalidInput(f"unit must be one of {', '.join(SPLITS)}; got {self.unit!r}", param="unit")

    def __call__(
        self,
        source: str | Sequence[Message | Mapping[str, Any]],
        budget: int | Spend,
        *,
        query: str = "",
    ) -> Compressed:
        """Shorten a text or messages.

        Args:
            source: the text; or messages, as `Message` or as decoded JSON.
            budget: tokens allowed, as a number or as `Tokens`, `Ratio` or `Quality`.
            query: what the text will be asked; what has to do with it stays first.

        Raises:
            InvalidInput: a budget out of range, a malformed message.
            Unavailable: the scorer is out of reach and there is no fallback.
        """
        allowed = spend(budget)
        question = Question(query, self.embedder) if query.strip() else None
        if isinstance(source, str):
            return self._once(source, allowed, question)
        messages = tuple(
            replace(message if isinstance(message, Message) else chat.parse(message, param=f"messages.{i}"), id=f"m{i}")
            for i, message in enumerate(source)
        )
        return self._messages(messages, allowed, question)

    def _once(self, source: str, budget: Spend, question: Question | None) -> Compressed:
        if self.decisions is None:
            return self._text(source, budget, question)
        fallback = self.fallback.name if self.fallback is not None else ""
        asked = (question.text, question.embedder.name if question.embedder else "") if question is not None else ()
        knobs = repr((self.counter.name, self.scorer.name, fallback, self.unit, budget, asked))
        return self.decisions.replayed(source, knobs, lambda: self._text(source, budget, question))

    def _text(self, source: str, budget: Spend, question: Question | None) -> Compressed:
        before = self.counter.texts([source])[0]
        kind = content.kind(source)
        fits = before <= budget.allow(before, kind)
        if fits or kind == "code" or (kind == "data" and not is_json(source)):
            return Compressed(before, before, reason="within_budget" if fits else kind, text=source, source=source)
        scores, scored_by = scored([source], self._scores)
        (pruned,) = prune_by_content(
            self._prune, [source], scores, lambda tokens: budget.allow(tokens, kind), self.counter, question
        )
        return Compressed(
            pruned.tokens_before,
            pruned.tokens_after,
            tuple(Cut(start, end, _why(question)) for start, end in pruned.dropped),
            pruned.refusal,
            text=pruned.text,
            scored_by=scored_by,
            source=source,
        )

    def _messages(self, messages: tuple[Message, ...], budget: Spend, question: Question | None) -> Compressed:
        before = self.counter.request(messages)
        allowed = budget.allow(before, "prose")
        unchanged = Compressed(before, before, reason="within_budget", messages=messages)
        if before <= allowed:
            return unchanged
        plan = layout(messages, Budget(max(1, allowed)), self.counter)
        plan, cuts, scored_by = self._pruned(plan, question)
        try:
            plan = Fit()(plan)
        except BudgetError:
            return replace(unchanged, reason="budget_too_small")
        return replace(
            unchanged,
            tokens_after=plan.exact,
            dropped=tuple(_left_out(plan, cuts, _why(question))),
            reason="",
            messages=plan.render(),
            scored_by=scored_by,
            source="".join(segment.text for segment in plan.original if segment.kind not in _NO_TEXT),
        )

    def _pruned(self, plan: ContextPlan, question: Question | None) -> tuple[ContextPlan, Cuts, str]:
        """The plan with its history shortened evenly, by as much as the budget asks for; what was cut; by what."""
        segments = eligible.history(plan, _SHORTEST)
        if not segments:
            return plan, {}, ""
        texts = [segment.text for segment in segments]
        share = max(_LEAST_KEPT, 1 - plan.overflow / max(1, sum(plan.count.texts(texts))))
        scores, scored_by = scored(texts, self._scores)
        found = prune_by_content(self._prune, texts, scores, lambda tokens: int(share * tokens), plan.count, question)
        cut = {segment.id: one for segment, one in zip(segments, found, strict=True) if not one.refusal}
        if not cut:
            return plan, {}, scored_by
        plan = plan.rewrite({id: one.text for id, one in cut.items()}, step="compress", why=_why(question))
        return plan, {id: one.dropped for id, one in cut.items()}, scored_by

    @property
    def _prune(self) -> Prune:
        return Prune(self.unit, min_saved=1, min_share=0)

    def _scores(self, texts: Sequence[str]) -> tuple[list[TokenScores], str]:
        """Scores of all texts, and by what."""
        scorer = self.scorer if self.progress is None else Watched(self.scorer, self.progress)
        try:
            return scorer.score(texts, deadline=self.deadline), scorer.name
        except (Unavailable, ModelError) as error:
            if self.fallback is None:
                raise
            scores, reason = self.fallback.score(texts), str(error)
        if self.progress is not None:
            self.progress(1.0)
        return scores, f"{self.fallback.name} ({reason})"


def compress(
    source: str | Sequence[Message | Mapping[str, Any]],
    *,
    counter: Counter,
    scorer: Scorer,
    budget: int | Spend | None = None,
    ratio: float | None = None,
    unit: UnitName = "phrase",
) -> Compressed:
    """Shorten a text or messages to a number of tokens, or to a share of them; `Compressor` has all the options.

    Raises:
        InvalidInput: both or none of budget and ratio, or one out of range; an unknown unit; a malformed message.
        Unavailable: the scorer is out of reach.
    """
    return Compressor(counter, scorer, unit=unit)(source, spend(budget, ratio=ratio))


def _why(question: Question | None) -> str:
    return "tells little" if question is None else "has little to do with the query"


def _left_out(plan: ContextPlan, cuts: Cuts, why: str) -> Iterator[Cut]:
    kept = {segment.id for segment in plan.segments}
    offset = 0
    for segment in plan.original:
        if segment.kind in _NO_TEXT:
            continue
        if segment.id not in kept and segment.text:
            yield Cut(offset, offset + len(segment.text), _OLDEST)
        elif segment.id in kept:
            yield from (Cut(offset + start, offset + end, why) for start, end in cuts.get(segment.id, ()))
        offset += len(segment.text)
