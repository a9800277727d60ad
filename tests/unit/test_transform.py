"""The loop that runs transforms, and the one place that fails open."""

from __future__ import annotations

import pytest

from ctxmem.errors import BudgetError
from ctxmem.plan import layout
from ctxmem.testing import WordCounter, messages
from ctxmem.transform import over_budget, run, when
from ctxmem.types import Budget


def plan(limit: int = 100):
    return layout(
        messages("system: be brief", "user: one two", "assistant: three", "user: four"), Budget(limit), WordCounter()
    )


def drop_second(plan):
    return plan.drop({"m1:0"}, step="drop_second", why="a test")


def broken(plan):
    raise RuntimeError("boom")


def test_steps_run_in_order_and_leave_their_trace():
    """One decision each."""
    done = run(plan(), [drop_second])
    assert [(d.step, d.action, d.tokens) for d in done.decisions] == [("drop_second", "drop", -5)]


def test_a_step_that_raises_is_skipped_aloud():
    """The plan stays as it was, the next step runs, the decision says what went wrong."""
    done = run(plan(), [broken, drop_second])
    assert [d.action for d in done.decisions] == ["skip", "drop"]
    assert "RuntimeError: boom" in done.report.skipped[0].why


def test_strict_raises():
    """For tests."""
    with pytest.raises(RuntimeError):
        run(plan(), [broken], strict=True)


def test_a_budget_error_always_passes():
    """It is an answer, not a fault."""

    def refuse(plan):
        raise BudgetError("no", needed=2, limit=1)

    with pytest.raises(BudgetError):
        run(plan(), [refuse])


def test_when_gates_a_step():
    """It runs only where the condition holds."""
    assert run(plan(100), [when(over_budget, drop_second)]).decisions == ()
    assert len(run(plan(10), [when(over_budget, drop_second)]).decisions) == 1


def test_a_report_reads_as_a_table():
    """One line a decision under a head."""
    lines = str(run(plan(), [drop_second]).report).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("drop_second  drop")
