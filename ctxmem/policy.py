"""Policies: which transforms run on what has just arrived, and which at an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ctxmem.errors import InvalidInput
from ctxmem.ports import Scorer
from ctxmem.registry import resolve
from ctxmem.transform import Transform

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
    """

    name: str
    arrival: tuple[Transform, ...]
    epoch: tuple[Transform, ...]
    high: float = 0.8
    low: float = LOW


def _none(scorer: Scorer, deadline: float) -> Policy:
    """Nothing is shortened; whole turns leave, oldest first, when the budget forces it."""
    del scorer, deadline
    return Policy("none", (), (resolve("fit")(low=LOW),))


def _balanced(scorer: Scorer, deadline: float) -> Policy:
    """Fresh tool results are shortened as they arrive; at an epoch old turns are shortened, then the oldest leave."""
    selective: Callable[..., Any] = resolve("selective")
    arrival = selective(scorer=scorer, deadline=deadline)
    epoch = selective(scorer=scorer, min_tokens=24, target=LOW, deadline=_EPOCH_PATIENCE * deadline)
    return Policy("balanced", (arrival,), (epoch, resolve("fit")(low=LOW)))


_EPOCH_PATIENCE = 10
"""Deadlines an epoch may take: it is rare, and what it decides stays."""

POLICIES: dict[str, Callable[[Scorer, float], Policy]] = {"none": _none, "balanced": _balanced}
"""Name to builder; a builder takes the scorer that the policy's transforms share, and the deadline in seconds."""


def policy(name: str, scorer: Scorer, *, deadline: float = 0.15) -> Policy:
    """The policy behind a name.

    Args:
        name: what the caller asked for.
        scorer: self-information for its transforms.
        deadline: seconds that shortening what has just arrived may take; an epoch may take ten times that.

    Raises:
        InvalidInput: nobody knows the name.
    """
    build = POLICIES.get(name)
    if build is None:
        raise InvalidInput(f"unknown policy {name!r}; known: {', '.join(sorted(POLICIES))}", param="policy")
    return build(scorer, deadline)
