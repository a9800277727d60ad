"""Policies: which transforms run on what has just arrived, and which at an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ctxmem.errors import InvalidInput
from ctxmem.ports import Scorer
from ctxmem.registry import resolve
from ctxmem.transform import Transform

if TYPE_CHECKING:
    from ctxmem.compressors.pencil.fold import Fold

LOW = 0.35
"""Share of the budget that an epoch leaves. Lower: fewer epochs, cheaper turns. Higher: more is kept word for word."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a context is kept small.

    Attributes:
        name: what callers ask for.
        arrival: transforms for what is new in a request; the rest of the plan is frozen.
        epoch: transforms for the opened plan; `fit` comes last.
        high: share of the budget above which an epoch is considered.
        low: share of the budget an epoch brings the context down to.
        scopes: folds scopes that have ended, before all else; by default those that callers opened and ended.
        memory: whether a local model may read the state as compressed key/value memory in place of its text.
    """

    name: str
    arrival: tuple[Transform, ...]
    epoch: tuple[Transform, ...]
    high: float = 0.8
    low: float = LOW
    scopes: Fold = field(default_factory=lambda: resolve("fold")())
    memory: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What a policy's transforms work with; the manager has it ready.

    Attributes:
        scorer: self-information.
        deadline: seconds that shortening what has just arrived may take; an epoch may take ten times that.
        ahead: finds states that were worked out in the background, for transforms that know what to do with them.
    """

    scorer: Scorer
    deadline: float = 0.15
    ahead: Callable[..., Any] | None = None


def _arrival(parts: Parts) -> tuple[Transform, ...]:
    """Shortens fresh tool results."""
    return (resolve("selective")(scorer=parts.scorer, deadline=parts.deadline),)


def _none(parts: Parts) -> Policy:
    """Nothing is shortened; whole turns leave, oldest first, when the budget forces it."""
    del parts
    return Policy("none", (), (resolve("fit")(low=LOW),))


def _balanced(parts: Parts) -> Policy:
    """Fresh tool results are shortened as they arrive; at an epoch old turns are shortened, then the oldest leave."""
    selective: Callable[..., Any] = resolve("selective")
    epoch = selective(scorer=parts.scorer, min_tokens=24, target=LOW, deadline=_EPOCH_PATIENCE * parts.deadline)
    return Policy("balanced", _arrival(parts), (epoch, resolve("fit")(low=LOW)))


def _mem1(parts: Parts) -> Policy:
    """Fresh tool results are shortened as they arrive; at an epoch what is old becomes one bounded state."""
    ahead = {"ahead": parts.ahead} if parts.ahead is not None else {}
    epoch = (resolve("consolidate")(low=LOW, **ahead), resolve("fit")(low=LOW))
    return Policy("mem1", _arrival(parts), epoch)


def _pencil(parts: Parts) -> Policy:
    """As `balanced`; and a subtask that an agent has ended by its own calls is folded into its answer at once."""
    return replace(_balanced(parts), name="pencil", scopes=resolve("fold")(auto=True))


def _ccm(parts: Parts) -> Policy:
    """As `mem1`; a local model has key/value memory of what was folded, and the state's text is for all others."""
    folded = resolve("consolidate")(low=LOW, action="memory", step="ccm")
    return Policy("ccm", _arrival(parts), (folded, resolve("fit")(low=LOW)), memory=True)


_EPOCH_PATIENCE = 10
"""Deadlines an epoch may take: it is rare, and what it decides stays."""

POLICIES: dict[str, Callable[[Parts], Policy]] = {
    "none": _none,
    "balanced": _balanced,
    "mem1": _mem1,
    "pencil": _pencil,
    "ccm": _ccm,
}
"""Name to builder; a builder takes the parts that the policy's transforms share."""


def policy(name: str, parts: Parts) -> Policy:
    """The policy behind a name.

    Args:
        name: what the caller asked for.
        parts: what its transforms work with.

    Raises:
        InvalidInput: nobody knows the name.
    """
    build = POLICIES.get(name)
    if build is None:
        raise InvalidInput(f"unknown policy {name!r}; known: {', '.join(sorted(POLICIES))}", param="policy")
    return build(parts)
