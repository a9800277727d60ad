"""Transforms and the loop that runs them. A transform is any callable from plan to plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ctxmem.errors import BudgetError
from ctxmem.plan import ContextPlan

Transform = Callable[[ContextPlan], ContextPlan]
"""Takes a plan, gives a plan. A function, or a frozen dataclass whose fields are the method's knobs."""

_log = logging.getLogger("ctxmem")


def run(plan: ContextPlan, pipeline: Iterable[Transform], *, strict: bool = False) -> ContextPlan:
    """Run transforms in order. This is the one place that fails open.

    A transform that raises leaves the plan as it was and a `skip` decision that says so.

    Args:
        plan: where to start.
        pipeline: the transforms.
        strict: raise instead of skipping; for tests.

    Raises:
        BudgetError: from the last step, when the pinned minimum does not fit. It is never swallowed.
    """
    for transform in pipeline:
        try:
            plan = transform(plan)
        except BudgetError:
            raise
        except Exception as error:  # fail open, aloud: logged and reported
            if strict:
                raise
            name = step_name(transform)
            _log.warning("transform %s failed and was skipped", name, exc_info=True)
            plan = plan.skip(step=name, why=f"failed: {type(error).__name__}: {error}")
    return plan


def when(condition: Callable[[ContextPlan], bool], transform: Transform) -> Transform:
    """The transform, run only on plans for which the condition holds."""

    def gated(plan: ContextPlan) -> ContextPlan:
        return transform(plan) if condition(plan) else plan

    gated.__name__ = step_name(transform)
    return gated


def over_budget(plan: ContextPlan) -> bool:
    """Whether the plan is larger than its budget."""
    return plan.overflow > 0


def step_name(transform: Transform) -> str:
    """The name a transform's decisions carry."""
    name = getattr(transform, "step", None) or getattr(transform, "__name__", None)
    return str(name or type(transform).__name__.lower())
