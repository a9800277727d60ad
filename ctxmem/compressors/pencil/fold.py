"""PENCIL's reduction on a plan: `C [CALL] T [SEP] A [RETURN] => C A`, where C, T and A are messages.

A scope that has ended becomes one message with its task and its answer. What stands before it keeps its bytes, so a
provider's prompt cache finds it again; what users said inside stays, word for word; a call and its result go together
or stay together. Differs from Yang et al. 2025 (arXiv 2503.14337) in that the erased thoughts are in the log, and in
that a scope with a call that waits for its answer is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ctxmem.compressors.pencil.foreign import RESULT_OF, last_said, marks, pending
from ctxmem.compressors.pencil.marks import Mark, ended, line
from ctxmem.plan import ContextPlan, owner
from ctxmem.types import Segment


@dataclass(frozen=True, slots=True)
class Ended:
    """A scope of a plan that has ended, or was reduced.

    Attributes:
        first: index of the first segment that goes.
        last: index of the last one, of the exchange that ended it.
        into: what takes their place.
    """

    first: int
    last: int
    into: Segment


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold scopes that have ended.

    Attributes:
        auto: scopes that an agent made by its own calls too, not only those with marks of ours.
        least: tokens that folding such a scope must save.
        step: name of its decisions.
    """

    auto: bool = False
    least: int = 48
    step: str = "fold"

    def __call__(self, plan: ContextPlan) -> ContextPlan:
        """The plan with each scope that has ended as one segment; those that were sent before are left alone."""
        for one in _scopes(plan, auto=self.auto):
            going = _going(plan, one)
            if going and not any(segment.frozen for segment in going):
                plan = self._folded(plan, one, going)
        return plan

    def ended_now(self, plan: ContextPlan) -> frozenset[str]:
        """Ids of the segments of scopes whose end has just arrived: what may be opened for this transform."""
        scopes = _scopes(plan, auto=self.auto)
        fresh = [one for one in scopes if not plan.segments[one.last].frozen]
        return frozenset(segment.id for one in fresh for segment in _going(plan, one))

    def _folded(self, plan: ContextPlan, one: Ended, going: list[Segment]) -> ContextPlan:
        turns = len({owner(segment) for segment in going})
        why = f"{turns} messages of a subtask that has ended"
        if one.into.kind == "scope":
            why = f"{turns} messages of a subtask that goes on with a smaller task"
        folded = plan.fold([segment.id for segment in going], one.into, step=self.step, why=why)
        least = 0 if any(segment.kind == "scope" for segment in going) else self.least
        return folded if plan.tokens - folded.tokens >= least else plan


def _scopes(plan: ContextPlan, *, auto: bool) -> list[Ended]:
    """The outermost scopes that have ended, last first: folding one leaves the places of the others as they are."""
    found: list[Ended] = []
    frames: list[tuple[Mark, int]] = []
    for seen in marks(plan.segments, auto=auto):
        mark = seen.mark
        if mark is None:
            del frames[_innermost(frames, "") :]
            continue
        if mark.act == "open":
            frames.append((mark, seen.first if mark.scope else seen.last + 1))
            continue
        at = _innermost(frames, mark.scope)
        one = _ended(plan, *frames[at], mark, seen.first, seen.last) if at < len(frames) else None
        if one is None:
            continue
        task, first = frames[at]
        del frames[at:]
        found = [other for other in found if other.first < one.first]
        found.append(one)
        if mark.act == "tail":
            frames.append((replace(task, text=mark.text), first))
    return found[::-1]


def _innermost(frames: Sequence[tuple[Mark, int]], scope: str) -> int:
    """Where the scope stands among those that are open; their number when it does not.

    An agent's own ends name no scope: they end the innermost one, if that is an agent's too.
    """
    places = range(len(frames)) if scope else range(max(0, len(frames) - 1), len(frames))
    return next((at for at in reversed(places) if frames[at][0].scope == scope), len(frames))


def _ended(plan: ContextPlan, opened: Mark, first: int, mark: Mark, at: int, last: int) -> Ended | None:
    """The scope that a mark ends, which stands from `at` to `last`; None when a call waits, or it left no answer."""
    body = plan.segments[first : last + 1]
    owners = {owner(segment) for segment in body}
    if mark.act != "abort" and pending([message for message in plan.sources if message.id in owners]):
        return None
    name = f"fold-{owner(plan.segments[at])}"
    if mark.act == "tail":
        text = line(Mark("open", mark.scope, mark.text))
        return Ended(first, last, Segment(name, "user", "scope", text, 0, pinned=True))
    answer = mark.text or last_said(body)
    if not answer.strip():
        return None
    text = ended(mark, opened.text) if mark.scope else f"{RESULT_OF}{answer.strip()}"
    return Ended(first, last, Segment(name, "user", "fold", text, 0))


def _going(plan: ContextPlan, one: Ended) -> list[Segment]:
    """The segments of the scope that leave: all but what users said, what is pinned, and torn exchanges."""
    body = plan.segments[one.first : one.last + 1]
    inside = {segment.id for segment in body}
    staying = {segment.group or segment.id for segment in body if _stays(segment)}
    staying |= set(_torn(plan, inside))
    return [segment for segment in body if (segment.group or segment.id) not in staying]


def _stays(segment: Segment) -> bool:
    if segment.kind in ("scope", "fold", "retrieved"):
        return False
    return segment.pinned or segment.kind in ("state", "system") or segment.role == "user"


def _torn(plan: ContextPlan, inside: Collection[str]) -> Iterator[str]:
    """Groups with members on both sides."""
    within = {segment.group for segment in plan.segments if segment.id in inside and segment.group}
    return (s.group for s in plan.segments if s.group in within and s.id not in inside and s.group)
