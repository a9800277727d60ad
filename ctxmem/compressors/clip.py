"""The last resort for a budget: results of tools lose their middle, and say so.

Runs when all that may go has gone and the request is still too large, as behind a tool that printed a whole file. No
scores are needed, so it is never late. JSON is cut by its structure where that is enough, anything else between two
lines where there are any. A request is better served by the head and tail of a result than by an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctxmem.compressors.prune import Prune
from ctxmem.compressors.structured import is_json, prune_json
from ctxmem.plan import ContextPlan
from ctxmem.ports import Counter
from ctxmem.types import Segment

LEAST = 24
"""Tokens that a result keeps at least."""

_HEAD = 2 / 3
"""Share of what stays that comes from the beginning."""

_GATE = Prune(min_saved=1, min_share=0.0)


def clip(plan: ContextPlan, *, step: str) -> ContextPlan:
    """The plan with its tool results cut so that it fits; as it was where that cannot be done.

    The longest results lose first: all that are cut come down to one length.
    """
    cut = plan
    for _ in range(3):  # the sum of a plan's parts can be a few tokens off the rendering
        over = cut.exact - plan.budget.limit
        results = [s for s in cut.segments if s.kind == "tool_result" and not s.locked and s.tokens > LEAST]
        if over <= 0 or not results:
            break
        level = _level([s.tokens for s in results], over)
        texts = {s.id: clipped(s.text, _room(s, level, plan.count), plan.count) for s in results if s.tokens > level}
        cut = cut.rewrite(texts, step=step, why=f"{over} tokens over the budget: middle of tool results left out")
    return cut if cut.exact <= plan.budget.limit else plan


def clipped(text: str, budget: int, count: Counter) -> str:
    """Head and tail of a text with a mark between them, at most `budget` tokens; JSON by its structure if it can be.

    A text that fits comes back as it is. Below some ten tokens the mark alone is left.
    """
    if count.texts([text])[0] <= budget:
        return text
    if is_json(text):
        pruned = prune_json(text, budget, count, _GATE)
        if not pruned.refusal:
            return pruned.text
    best, low, high = _cut(text, 0), 1, len(text) - 1
    while low <= high:
        middle = (low + high) // 2
        tried = _cut(text, middle)
        if count.texts([tried])[0] <= budget:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def _cut(text: str, characters: int) -> str:
    """About that many characters of a text, between lines where one ends nearby."""
    head, tail = int(_HEAD * characters), len(text) - (characters - int(_HEAD * characters))
    line = text.rfind("\n", 0, head) + 1
    head = line if line > head / 2 else head
    line = text.find("\n", tail) + 1
    tail = line if 0 < line < (tail + len(text)) / 2 else tail
    return f"{text[:head]}\n[{tail - head} characters left out]\n{text[tail:]}"


def _level(tokens: Sequence[int], over: int) -> int:
    """The length to which the longest come down, so that together they lose `over` tokens; `LEAST` at the lowest."""
    low, high = LEAST, max(tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(max(0, one - middle) for one in tokens) >= over:
            low = middle
        else:
            high = middle - 1
    return low


def _room(segment: Segment, level: int, count: Counter) -> int:
    """Tokens of the text alone: a segment also has its share of the template."""
    return max(1, level - (segment.tokens - count.texts([segment.text])[0]))
