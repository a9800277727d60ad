"""Make a plan fit its budget by leaving the oldest out. Always the last step of a pipeline.

What is left out stays in the log; this step only decides what this request does without. It drops in the order in
which a reader misses things least: turns oldest first; and of the first turn that need not go whole only the tool
exchanges, where it has an answer besides. So a question keeps its answer, and what is left starts with a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ctxmem.compressors.clip import clip
from ctxmem.errors import BudgetError, InvalidInput
from ctxmem.plan import ContextPlan
from ctxmem.types import Segment


@dataclass(frozen=True, slots=True)
class Fit:
    """Drop whole groups, oldest first, until the rendered request fits; at last cut the newest tool results.

    Never dropped: pinned and frozen segments, the newest user message, the tool exchange that the model is to act on
    (the last group, when it comes after the newest user message), and half a group. The state of what was consolidated
    goes only when the request would be over its budget with it, not to come down to `low`. Where all that is not
    enough, the results of that exchange lose their middle.

    Attributes:
        low: share of the budget to go down to, when that much may go; 1 drops only what must.
        step: name of its decisions.

    Raises:
        InvalidInput: `low` is not in (0, 1].
    """

    low: float = 1.0
    step: str = "fit"

    def __post_init__(self) -> None:
        if isinstance(self.low, bool) or not 0 < self.low <= 1:
            raise InvalidInput(f"low must be a share in (0, 1], got {self.low!r}", param="low")

    def __call__(self, plan: ContextPlan) -> ContextPlan:
        """The plan within its budget, as the target model's own tokenizer counts the rendering.

        Raises:
            BudgetError: what may not be dropped is larger than the budget.
        """
        limit = plan.budget.limit
        goal = max(1, int(self.low * limit))
        size = plan.exact
        if size <= goal:
            return plan
        why = f"{size} tokens are over {goal}: oldest left out"
        retries = 0
        while size > limit or not retries:
            going = _chosen(plan.segments, (size - goal) * max(1, retries), keep_state=not retries)
            if not going and retries:
                break
            plan = plan.drop(going, step=self.step, why=why) if going else plan
            size = plan.exact
            goal, retries = limit, retries + 1
        if size > limit:
            plan = clip(plan, step=self.step)
            size = plan.exact
        if size > limit:
            raise BudgetError(
                f"the smallest request takes {size} tokens, the budget allows {limit}", needed=size, limit=limit
            )
        return plan


@dataclass(frozen=True, slots=True)
class _Group:
    """Segments that live or die as one.

    Attributes:
        ids: the segments.
        tokens: what they cost.
        exchange: whether it is a tool call with its results.
    """

    ids: tuple[str, ...]
    tokens: int
    exchange: bool


def _chosen(segments: Sequence[Segment], excess: int, *, keep_state: bool) -> set[str]:
    """Ids to drop for at least `excess` tokens, or all that may go."""
    going: set[str] = set()
    for turn in _turns(segments, keep_state=keep_state):
        if excess <= 0:
            break
        exchanges = [group for group in turn if group.exchange]
        answered = len(turn) - len(exchanges) > 1
        enough = answered and sum(group.tokens for group in exchanges) >= excess
        for group in _until(exchanges, excess) if enough else turn:
            going.update(group.ids)
            excess -= group.tokens
    return going


def _until(groups: Sequence[_Group], tokens: int) -> Sequence[_Group]:
    """The first groups that together have that many tokens."""
    sums = accumulate(group.tokens for group in groups)
    return groups[: next((i for i, total in enumerate(sums, 1) if total >= tokens), len(groups))]


def _turns(segments: Sequence[Segment], *, keep_state: bool) -> Iterator[list[_Group]]:
    """What may be dropped, turn by turn; in the newest turn each group stands alone."""
    members: dict[str, list[Segment]] = {}
    for segment in segments:
        members.setdefault(segment.group or segment.id, []).append(segment)
    newest = next((s.group or s.id for s in reversed(segments) if s.role == "user" and not s.ours), "")
    kept = {newest, segments[-1].group or segments[-1].id} if segments else set()
    turn: list[_Group] = []
    running = False
    for name, parts in members.items():
        running = running or name == newest
        if turn and (running or parts[0].role == "user"):
            yield turn
            turn = []
        if name not in kept and not any(part.locked or (keep_state and part.kind == "state") for part in parts):
            turn.append(_group(parts))
    if turn:
        yield turn


def _group(parts: Sequence[Segment]) -> _Group:
    exchange = any(part.kind == "tool_call" for part in parts)
    return _Group(tuple(part.id for part in parts), sum(part.tokens for part in parts), exchange)
