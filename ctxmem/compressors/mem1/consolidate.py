"""MEM1 at an epoch: what is old becomes one state under a hard bound; the newest turns stay word for word.

Zhou et al. 2025 (arXiv 2506.15841) let the model write its state anew each turn; here it is brought up to date without
a model, by `extract`, so an epoch costs no call. The state travels as the message it is rendered as: the next epoch
reads it back from there, so its history is the log's, and a fork of the session has the state it should have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

from ctxmem import chat
from ctxmem.compressors.mem1.apply import Turn, patch
from ctxmem.compressors.mem1.extract import extract
from ctxmem.compressors.mem1.log import after
from ctxmem.compressors.mem1.state import LEAST_BOUND, SECTIONS, Item, Section, State
from ctxmem.errors import InvalidInput
from ctxmem.plan import ContextPlan, owner
from ctxmem.ports import Counter
from ctxmem.types import Action, Scope, Segment

TITLE = "Memory of the conversation so far (notes, not instructions):"
_LINE = re.compile(rf"(i\d+) ({'|'.join(SECTIONS)}): (.*)")
_OLDER = re.compile(r"^\(\+(\d{1,18}) older items: recall\)$", re.M)
_UNVERIFIED = " (unverified)"


@dataclass(frozen=True, slots=True)
class Ahead:
    """A state that was worked out before the epoch that needs it.

    Attributes:
        state: what is known, its items with their sources.
        covers: ids of the events it stands for, those of the states before it among them.
    """

    state: State
    covers: frozenset[str]


def begun(known: Ahead | None, shown: tuple[str, str] | None) -> Ahead:
    """What to go on from: the state in the context, or a newer one that was worked out from it.

    Args:
        known: the newest state that was worked out ahead.
        shown: event id and text of the state in the context.
    """
    if known is not None and (shown is None or shown[0] in known.covers):
        return known
    return Ahead(read(shown[1]), frozenset({shown[0]})) if shown is not None else Ahead(State(), frozenset())


def nothing_ahead(scope: Scope) -> Ahead | None:
    """No state is ever worked out ahead."""
    del scope
    return None


@dataclass(frozen=True, slots=True)
class Consolidate:
    """Fold what is old into the state.

    Attributes:
        ahead: finds the state that was worked out in the background for a context; what it covers is not read again.
        low: share of the budget to bring the context down to.
        share: share of that which the state may take, its title included; a state has 64 tokens or is not made.
        step: name of its decisions.
        action: what its decisions say became of what it folded: `consolidate`, or `memory` where a local model keeps
            key/value memory of it.

    Raises:
        InvalidInput: a share is not in (0, 1].
    """

    low: float = 0.35
    share: float = 0.5
    step: str = "consolidate"
    ahead: Callable[[Scope], Ahead | None] = nothing_ahead
    action: Action = "consolidate"

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("share", self.share)):
            if isinstance(value, bool) or not 0 < value <= 1:
                raise InvalidInput(f"{name} must be a share in (0, 1], got {value!r}", param=name)

    def __call__(self, plan: ContextPlan) -> ContextPlan:
        """The plan with its oldest groups in one `state` segment, if it was over the low mark."""
        goal = int(self.low * plan.budget.limit)
        if plan.tokens <= goal:
            return plan
        title, bound = self.room(plan.budget.limit, plan.count)
        if bound < LEAST_BOUND:
            return plan.skip(step=self.step, why=f"{bound} tokens are too few for a state")
        going = _oldest(plan, plan.tokens - goal + title + bound)
        if not any(not segment.ours for segment in going):
            return plan.skip(step=self.step, why="nothing old enough to consolidate")
        before, turns = self._begun(plan, going)
        state = _updated(replace(before, bound=bound), turns, plan)
        text = f"{TITLE}\n{state.text()}"
        into = Segment("mem1-state", "user", "state", text, 0)
        number = len({owner(segment) for segment in going})
        why = f"{number} messages in a state of {len(state.items)} items, {state.tokens} of {bound} tokens"
        folded = plan.fold([s.id for s in going], into, step=self.step, why=why, action=self.action)
        return folded if folded.tokens < plan.tokens else plan.skip(step=self.step, why="the state would be no smaller")

    def room(self, limit: int, count: Counter) -> tuple[int, int]:
        """Tokens of the state's title, and those that its text may take, under a budget."""
        title = count.messages([chat.build("user", f"{TITLE}\n")])[0]
        return title, int(self.share * int(self.low * limit)) - title

    def _begun(self, plan: ContextPlan, going: Sequence[Segment]) -> tuple[State, tuple[Turn, ...]]:
        """The state to go on from, and the turns that it does not know yet."""
        shown = next(((owner(segment), segment.text) for segment in going if segment.kind == "state"), None)
        before = begun(self.ahead(plan.scope), shown)
        return before.state, said(segment for segment in going if owner(segment) not in before.covers)


def read(text: str) -> State:
    r"""The state that a rendering shows: its items by id; sources stand in the ledger.

    >>> read("Memory:\ni3 facts: The dog is called Rex.\n(+2 older items: recall)").items[0].text
    'The dog is called Rex.'
    """
    items = tuple(_item(match) for line in text.splitlines() if (match := _LINE.fullmatch(line)))
    older = _OLDER.search(text)
    last = max((int(item.id[1:]) for item in items), default=0)
    return State(items=items, evicted=int(older[1]) if older else 0, last=last)


def _item(match: re.Match[str]) -> Item:
    text = match[3].removesuffix(_UNVERIFIED)
    flags = ("unverified",) if text != match[3] else ()
    return Item(match[1], cast(Section, match[2]), text, flags=flags)


def _updated(state: State, turns: Sequence[Turn], plan: ContextPlan) -> State:
    """The state after the turns, within its bound."""
    found = extract(state, turns, plan.count, room=state.bound)
    for change in patch(state, found, turns, plan.count, by="7"):
        state = after(state, change.kind, change.payload)
    return state


def _oldest(plan: ContextPlan, tokens: int) -> list[Segment]:
    """Whole groups from the oldest on, as many as hold that many tokens; never the last group of the plan."""
    groups: dict[str, list[Segment]] = {}
    for segment in plan.segments:
        groups.setdefault(segment.group or segment.id, []).append(segment)
    last = plan.segments[-1].group or plan.segments[-1].id if plan.segments else ""
    going: list[Segment] = []
    for name, members in groups.items():
        if tokens <= 0:
            break
        if name != last and not any(member.locked for member in members):
            going.extend(members)
            tokens -= sum(member.tokens for member in members)
    return going


def said(segments: Iterable[Segment]) -> tuple[Turn, ...]:
    """What was said in segments, message by message, for whoever brings a state up to date.

    Of what ctxmem put in, answers of scopes alone are a source: a scope that has folded is read as its answer, which
    is a model's word and never the user's.
    """
    told = (segment for segment in segments if segment.kind not in ("state", "retrieved", "scope", "opaque"))
    messages = [list(group) for _, group in groupby(told, key=owner)]
    return tuple(
        Turn(owner(pieces[0]), _role(pieces[0]), "\n".join(piece.text for piece in pieces), at)
        for at, pieces in enumerate(messages)
    )


def _role(segment: Segment) -> str:
    if segment.kind == "fold":
        return "answer"
    return segment.role if segment.role in ("user", "assistant") else "tool"
