"""Clip: results of tools that are too large for the budget on their own."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem import ContextManager
from ctxmem.compressors.clip import LEAST, clip, clipped
from ctxmem.compressors.fit import Fit
from ctxmem.errors import BudgetError
from ctxmem.plan import ContextPlan, layout
from ctxmem.testing import WordCounter, messages, tool_call, tool_result
from ctxmem.types import Budget

COUNT = WordCounter()
LINES = "\n".join(f"line {number} of the build log" for number in range(400))


def plan_of(*said: object, limit: int) -> ContextPlan:
    return layout(messages(*said), Budget(limit), COUNT)


def test_head_and_tail_stay_and_whole_lines():
    """With a mark that says how much is missing; each line that is left is one of the source."""
    text = clipped(LINES, 100, COUNT)
    before, mark, after = text.partition("[")
    assert COUNT.texts([text])[0] <= 100
    assert LINES.startswith(before.rstrip("\n"))
    assert LINES.endswith(after.partition("]\n")[2])
    assert mark
    assert len(LINES) - int(after.split()[0]) == len(before.rstrip("\n") + "\n") + len(after.partition("]\n")[2])


def test_json_still_parses():
    rows = json.dumps([{"number": number, "name": f"row {number}"} for number in range(200)])
    assert json.loads(clipped(rows, 60, COUNT))[0] == {"number": 0, "name": "row 0"}


@given(st.text(max_size=400), st.integers(12, 60))
def test_never_over_its_budget(text: str, budget: int):
    """Whatever the text; one that fits is left alone."""
    done = clipped(text, budget, COUNT)
    assert COUNT.texts([done])[0] <= budget
    assert done == text or COUNT.texts([text])[0] > budget


def test_the_longest_of_parallel_results_loses_first():
    """Down to one length; short ones stay whole."""
    said = [
        "user: look",
        tool_call("a", "b", "c"),
        tool_result("a", "x " * 900),
        tool_result("b", "y " * 700),
        tool_result("c", "z " * 20),
    ]
    after = Fit()(plan_of(*said, limit=200))
    sizes = {segment.text[0]: segment.tokens for segment in after.segments if segment.kind == "tool_result"}
    assert after.exact <= 200
    assert abs(sizes["x"] - sizes["y"]) <= 2
    assert sizes["x"] > 50
    assert sizes["z"] == plan_of(*said, limit=9999).segments[-1].tokens


def test_what_cannot_be_cut_is_an_error_as_before():
    """The user's own words are never cut."""
    plan = plan_of("user: " + "word " * 300, tool_call("a"), tool_result("a", "x " * 900), limit=200)
    assert clip(plan, step="fit") is plan
    with pytest.raises(BudgetError):
        Fit()(plan)


@pytest.mark.parametrize("policy", ["none", "balanced", "mem1", "pencil"])
def test_a_huge_result_is_no_error(policy: str, tmp_path: Path):
    """Every policy sends what fits, keeps the original, and replays the same bytes on the next turn."""
    code = "\n".join(f"value_{number} = compute({number})" for number in range(1500))
    said = messages("user: what is wrong?", tool_call("a", name="read_file"), tool_result("a", code))
    with closing(ContextManager(f"sqlite:///{tmp_path}/log.db", model="some-model", policy=policy)) as manager:
        plan = manager.prepare("s", [json.loads(message.raw) for message in said], budget=1000)
        assert plan.exact <= 1000
        sent = plan.messages()[-1]["content"]
        assert sent.startswith("value_0 = ")
        assert sent.endswith("compute(1499)")
        assert "left out" in sent
        manager.record("s", "Nothing.")
        again = manager.prepare("s", [{"role": "user", "content": "and now?"}], budget=2000)
        assert sent in [message.get("content") for message in again.messages()]
        item = next(item for item in plan.report.receipt.items if item.decision == "pruned")
        assert manager.restore(item.item_id)["content"] == code


def test_nothing_to_cut_below_the_least():
    plan = plan_of("user: a", tool_call("a"), tool_result("a", "x " * (LEAST - 12)), limit=5)
    assert clip(plan, step="fit") is plan
