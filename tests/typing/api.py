"""Code as users write it. It is never run: mypy --strict must accept it, and know the types that it states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import ctxmem
from ctxmem import Budget, ContextManager, Item, Receipt
from ctxmem.errors import BudgetError, CtxmemError
from ctxmem.plan import ContextPlan
from ctxmem.ports import Counter, Scorer, TokenScores
from ctxmem.report import Report
from ctxmem.testing import LengthScorer, WordCounter
from ctxmem.transform import Transform, run, when
from ctxmem.types import Decision


def conversation(cm: ContextManager) -> str:
    """Prepare, call a model of one's own, record."""
    plan = cm.prepare("chat-42", [{"role": "user", "content": "Hello"}], budget=2048, model="smollm2")
    assert_type(plan, ContextPlan)
    assert_type(plan.messages(), list[dict[str, Any]])
    assert_type(plan.report, Report)
    assert_type(plan.report.saved, int)
    return cm.record("chat-42", {"role": "assistant", "content": "Hi!"})


def account(cm: ContextManager, request_id: str) -> Mapping[str, Any]:
    """Read a receipt and get back what was left out."""
    receipt = cm.receipt(request_id)
    assert_type(receipt, Receipt)
    assert_type(receipt.items, Sequence[Item])
    dropped = [item for item in receipt.items if item.decision == "dropped"]
    return cm.restore(dropped[0].item_id)


def budgets(cm: ContextManager) -> int:
    """A budget is a number of tokens, or a window with a reserve."""
    try:
        plan = cm.prepare("chat-42", [], Budget(4096, reserve=512), policy="none")
    except BudgetError as error:
        return error.needed - error.limit
    except CtxmemError as error:
        raise SystemExit(error.code) from error
    return plan.budget.limit - plan.tokens


@dataclass(frozen=True, slots=True)
class Shout:
    """A transform of one's own.

    Attributes:
        least: tokens below which a segment stays as it is.
    """

    least: int = 4

    def __call__(self, plan: ContextPlan) -> ContextPlan:
        """The plan in capital letters."""
        texts = {s.id: s.text.upper() for s in plan.segments if not s.locked and s.tokens >= self.least}
        return plan.rewrite(texts, step="shout", why="louder")


def quiet(plan: ContextPlan) -> ContextPlan:
    """A function is a transform too."""
    return plan.skip(step="quiet", why="nothing to do")


def pipeline(plan: ContextPlan) -> tuple[Decision, ...]:
    """Transforms are composed by a list and by wrappers."""
    steps: list[Transform] = [Shout(least=2), quiet, when(lambda p: p.overflow > 0, Shout())]
    return run(plan, steps, strict=True).decisions


counter: Counter = WordCounter()
scorer: Scorer = LengthScorer()
scores: list[TokenScores] = scorer.score(["Hello"], deadline=1.0)
tokens: int = ctxmem.count_tokens("Hello", model="smollm2")
