"""Compress a text or a conversation once, without a session: what goes in is forgotten when the answer is out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxmem import chat
from ctxmem.compressors import content, eligible
from ctxmem.compressors.fit import Fit
from ctxmem.compressors.prune import Prune
from ctxmem.compressors.selective import prune_by_content
from ctxmem.compressors.units import SPLITS, UnitName
from ctxmem.errors import BudgetError, InvalidInput
from ctxmem.plan import ContextPlan, layout
from ctxmem.ports import Counter, Scorer
from ctxmem.types import Budget, Message

Allow = Callable[[int], int]
"""From the tokens before, the tokens allowed."""

Cuts = Mapping[str, tuple[tuple[int, int], ...]]
"""By segment, the spans of its text that were left out."""

Dropped = tuple[int, int, str]
"""Start and end of what was left out, by character offsets in the source, and why."""

_SHORTEST = 24
_LEAST_KEPT = 0.33
_WHY = "tells little"
_OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class Compressed:
    """What came out.

    Attributes:
        tokens_before: tokens of what came in.
        tokens_after: tokens of what came out; never more.
        dropped: what was left out. For messages, offsets count through the texts of all messages, one after the other.
        reason: why everything stayed as it was; empty when it did not.
        text: the text; None for messages.
        messages: the messages, with the ids m0, m1, ... of their places in the source; None for a text.
    """

    tokens_before: int
    tokens_after: int
    dropped: tuple[Dropped, ...] = ()
    reason: str = ""
    text: str | None = None
    messages: tuple[Message, ...] | None = None


def compress(
    source: str | Sequence[Message | Mapping[str, Any]],
    *,
    counter: Counter,
    scorer: Scorer,
    budget: int | None = None,
    ratio: float | None = None,
    unit: UnitName = "phrase",
) -> Compressed:
    """Shorten a text or messages to a number of tokens.

    A text is pruned by phrases. Of messages, old user turns and tool results are pruned first; then whole turns leave,
    oldest first. What cannot be brought under the budget comes back unchanged, with the reason.

    Args:
        source: the text; or messages, as `Message` or as decoded JSON.
        counter: counts in the target model's tokens; messages with their chat template.
        scorer: gives self-information.
        budget: tokens allowed.
        ratio: share of the tokens to keep, in (0, 1]; give this or a budget.
        unit: what stays or goes as one.

    Raises:
        InvalidInput: both or none of budget and ratio, or one out of range; an unknown unit; a malformed message.
        Unavailable: the scorer is out of reach.
    """
    if unit not in SPLITS:
        raise InvalidInput(f"unit must be one of {', '.join(SPLITS)}; got {unit!r}", param="unit")
    allow = _allowance(budget, ratio)
    if isinstance(source, str):
        return _text(source, allow, counter, Prune(unit, min_saved=1, min_share=0), scorer)
    messages = tuple(
        replace(message if isinstance(message, Message) else chat.parse(message, param=f"messages.{i}"), id=f"m{i}")
        for i, message in enumerate(source)
    )
    return _messages(messages, allow, counter, Prune(unit, min_saved=1, min_share=0), scorer)


def _allowance(budget: int | None, ratio: float | None) -> Allow:
    if (budget is None) == (ratio is None):
        raise InvalidInput("give a budget or a ratio, one of them", param="budget")
    if ratio is None:
        limit = Budget(budget or 0).limit
        return lambda before: limit
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise InvalidInput(f"ratio must be a share in (0, 1], got {ratio!r}", param="ratio")
    return lambda before: int(ratio * before)


def _text(source: str, allow: Allow, counter: Counter, prune: Prune, scorer: Scorer) -> Compressed:
    before = counter.texts([source])[0]
    fits = before <= allow(before)
    if fits or (kind := content.kind(source)) in ("code", "data"):
        return Compressed(before, before, reason="within_budget" if fits else kind, text=source)
    (pruned,) = prune_by_content(prune, [source], scorer.score([source]), allow, counter)
    dropped = tuple((start, end, _WHY) for start, end in pruned.dropped)
    return Compressed(pruned.tokens_before, pruned.tokens_after, dropped, pruned.refusal, text=pruned.text)


def _messages(
    messages: tuple[Message, ...], allow: Allow, counter: Counter, prune: Prune, scorer: Scorer
) -> Compressed:
    before = counter.request(messages)
    allowed = allow(before)
    unchanged = Compressed(before, before, reason="within_budget", messages=messages)
    if before <= allowed:
        return unchanged
    plan = layout(messages, Budget(max(1, allowed)), counter)
    plan, cuts = _pruned(plan, prune, scorer)
    try:
        plan = Fit()(plan)
    except BudgetError:
        return replace(unchanged, reason="budget_too_small")
    return Compressed(before, plan.exact, tuple(_left_out(plan, cuts)), messages=plan.render())


def _pruned(plan: ContextPlan, prune: Prune, scorer: Scorer) -> tuple[ContextPlan, Cuts]:
    """The plan with its history shortened evenly, by as much as the budget asks for; and what was cut by segment."""
    segments = eligible.history(plan, _SHORTEST)
    if not segments:
        return plan, {}
    texts = [segment.text for segment in segments]
    share = max(_LEAST_KEPT, 1 - plan.overflow / max(1, sum(plan.count.texts(texts))))
    scores = scorer.score(texts)
    found = prune_by_content(prune, texts, scores, lambda tokens: int(share * tokens), plan.count)
    cut = {segment.id: one for segment, one in zip(segments, found, strict=True) if not one.refusal}
    if not cut:
        return plan, {}
    plan = plan.rewrite({id: one.text for id, one in cut.items()}, step="compress", why=_WHY)
    return plan, {id: one.dropped for id, one in cut.items()}


def _left_out(plan: ContextPlan, cuts: Cuts) -> Iterator[Dropped]:
    kept = {segment.id for segment in plan.segments}
    offset = 0
    for segment in plan.original:
        if segment.kind in ("tool_call", "opaque"):
            continue
        if segment.id not in kept and segment.text:
            yield offset, offset + len(segment.text), _OLDEST
        elif segment.id in kept:
            yield from ((offset + start, offset + end, _WHY) for start, end in cuts.get(segment.id, ()))
        offset += len(segment.text)
