"""Fit: what goes, in which order, and what never goes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ctxmem.compressors.fit import Fit
from ctxmem.errors import BudgetError, InvalidInput
from ctxmem.plan import ContextPlan, layout
from ctxmem.testing import WordCounter, messages, tool_call, tool_result, turns
from ctxmem.types import Budget, Segment

COUNT = WordCounter()


def plan_of(*said, limit: int, frozen: tuple[str, ...] = ()) -> ContextPlan:
    return layout(messages(*said), Budget(limit), COUNT, frozen=frozen)


def left(plan: ContextPlan) -> list[str]:
    return [segment.id.partition(":")[0] for segment in plan.segments]


def test_a_plan_that_fits_is_left_alone():
    """Not even a decision is written."""
    plan = layout(turns(3), Budget(1000), COUNT)
    assert Fit()(plan) is plan


def test_the_oldest_turns_go_whole():
    """Question and answer leave together, so that the rest starts with a question."""
    plan = layout(turns(5, words=5), Budget(60), COUNT)  # 8 + 10 x 8 + 2
    after = Fit()(plan)
    assert left(after) == ["m0", "m5", "m6", "m7", "m8", "m9", "m10"]
    assert [m["role"] for m in after.messages()][:2] == ["system", "user"]
    assert after.exact == after.tokens <= 60
    assert [d.action for d in after.decisions] == ["drop"]


def test_low_water_goes_deeper_than_the_limit():
    """An epoch makes room, so that the next one is far."""
    plan = layout(turns(20), Budget(200), COUNT)
    assert Fit(low=0.5)(plan).exact <= 100


def test_low_water_acts_on_a_plan_that_fits():
    """The manager runs it when it wants room, not only when there is none."""
    plan = layout(turns(5), Budget(1000), COUNT)
    assert Fit(low=0.05)(plan).exact < plan.exact


def test_low_water_that_cannot_be_met_is_no_error():
    """As much goes as may go; only the limit is a must."""
    plan = plan_of("system: one two three", "user: four five six seven", limit=20)
    assert Fit(low=0.1)(plan) is plan or Fit(low=0.1)(plan).segments == plan.segments


def test_an_old_turn_first_loses_its_tool_exchanges():
    """Where that is enough, the question and its answer stay."""
    said = ["user: old question", tool_call("a"), tool_result("a", "x " * 50), "assistant: old answer", "user: new"]
    after = Fit()(plan_of(*said, limit=40))
    assert left(after) == ["m0", "m3", "m4"]


def test_a_running_turn_loses_its_oldest_exchanges():
    """A long tool loop on one question goes on with its newest results."""
    said = ["user: the task"]
    for i in range(20):
        said += [tool_call(f"c{i}"), tool_result(f"c{i}", "x " * 10)]
    after = Fit()(plan_of(*said, limit=100))
    assert left(after)[0] == "m0"
    assert left(after)[-2:] == ["m39", "m40"]
    assert all(a == b - 1 for a, b in zip(left_numbers(after)[1:-1], left_numbers(after)[2:], strict=True))


def left_numbers(plan: ContextPlan) -> list[int]:
    return [int(id[1:]) for id in left(plan)]


def test_parallel_calls_stay_with_all_their_results():
    """A group is never torn."""
    said = ["user: q", tool_call("a", "b"), tool_result("a", "x " * 30), tool_result("b", "y"), "user: now"]
    after = Fit()(plan_of(*said, limit=20))
    assert left(after) == ["m4"]


class TestTooSmall:
    @pytest.mark.parametrize(
        "said",
        [
            ["system: " + "s " * 50, "user: q"],
            ["user: " + "q " * 50],
            ["user: q", tool_call("a"), tool_result("a", "x " * 50)],
        ],
        ids=["system", "question", "the result to act on"],
    )
    def test_what_must_stay_is_never_dropped(self, said):
        """The error says how many tokens it would take."""
        with pytest.raises(BudgetError) as caught:
            Fit()(plan_of("user: old", "assistant: old", *said, limit=30))
        smallest = plan_of(*said, limit=30)
        assert (caught.value.needed, caught.value.limit) == (smallest.exact, 30)

    def test_frozen_segments_stay(self):
        """They may only go once an epoch has opened the plan."""
        plan = plan_of("user: " + "a " * 50, "assistant: b", "user: q", limit=30, frozen=("m0",))
        with pytest.raises(BudgetError):
            Fit()(plan)
        assert left(Fit()(plan.open())) == ["m2"]

    @pytest.mark.parametrize("low", [0, -1, 1.5, True, float("nan")])
    def test_low_must_be_a_share(self, low):
        """At construction, not in the middle of a request."""
        with pytest.raises(InvalidInput, match="low"):
            Fit(low=low)


@dataclass(frozen=True, slots=True)
class Glueing:
    """A counter whose requests cost more than the sum of their messages, as some templates do."""

    words: WordCounter = COUNT
    name: str = "glueing"
    exact: bool = True
    window: int | None = None

    def texts(self, texts):
        return self.words.texts(texts)

    def messages(self, messages):
        return self.words.messages(messages)

    def request(self, messages, tools=None):
        return self.words.request(messages, tools) + 2 * len(messages) ** 2 // 10


@pytest.mark.parametrize(("limit", "there"), [(60, True), (30, False)])
def test_a_state_goes_only_when_it_must(limit: int, there: bool):
    """To come down to the low mark turns are enough; what holds all that was folded is not one of them."""
    plan = layout(turns(5, words=5), Budget(limit), COUNT)
    state = Segment("state-1", "user", "state", "Goal: to see", 0)
    old = [segment.id for segment in plan.segments[1:3]]
    after = Fit(low=0.2)(plan.fold(old, state, step="x", why="old"))
    assert (after.segments[1].kind == "state") is there
    assert after.exact <= limit


def test_the_rendering_itself_is_what_must_fit():
    """Where the parts do not add up to the whole, the whole decides."""
    plan = layout(turns(30), Budget(150), Glueing())
    assert Fit()(plan).exact <= 150


def test_ten_thousand_segments():
    """One drop for all of them."""
    plan = layout(turns(5000), Budget(1000), COUNT)
    after = Fit()(plan)
    assert after.exact <= 1000
    assert len(after.decisions) == 1
