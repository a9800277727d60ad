"""Selective Context as a transform: what it touches, what it says, and what it does without its scorer."""

from __future__ import annotations

import pytest

from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.selective import SelectiveContext
from ctxmem.errors import InvalidInput, ModelError
from ctxmem.plan import ContextPlan, layout
from ctxmem.testing import DeadScorer, LengthScorer, WordCounter, messages, tool_call, tool_result
from ctxmem.types import Budget

COUNT = WordCounter()
PROSE = " ".join(
    f"The ship {i} of captain Name{i} came to the harbour in {1800 + i}, and then it left." for i in range(30)
)
LOG = "\n".join(f"2024-01-01 12:{i // 60:02}:{i % 60:02} INFO worker {i} is ready for work" for i in range(80))
CODE = "\n".join(f"def function_{i}(a, b):\n    value = a + b * {i}\n    return value" for i in range(60))
DATA = "[" + ", ".join(f'{{"id": {i}, "name": "Name{i}"}}' for i in range(200)) + "]"

arrival = SelectiveContext(LengthScorer())
epoch = SelectiveContext(LengthScorer(), min_tokens=24, target=0.5)


def plan_of(*said, limit: int = 1000, frozen: tuple[str, ...] = ()) -> ContextPlan:
    return layout(messages(*said), Budget(limit), COUNT, frozen=frozen)


def touched(plan: ContextPlan) -> list[str]:
    return [id for decision in plan.decisions if decision.action == "prune" for id in decision.segments]


class TestArrival:
    def test_shortens_a_fresh_tool_result(self):
        """By half, in the target model's tokens."""
        plan = plan_of("system: s", "user: q", tool_call("c"), tool_result("c", PROSE))
        after = arrival(plan)
        assert touched(after) == ["m3:0"]
        text = after.messages()[3]["content"]
        assert 0.45 <= len(text.split()) / len(PROSE.split()) <= 0.5
        assert after.exact == after.tokens == plan.tokens + after.decisions[0].tokens

    @pytest.mark.parametrize(
        ("what", "text"),
        [("code", CODE), ("data", DATA), ("fenced", f"```\n{CODE}\n```"), ("short", PROSE[:1000])],
        ids=lambda value: value if len(value) < 10 else "",
    )
    def test_leaves_code_data_and_short_results(self, what, text):
        """Nothing to gain there, and much to break."""
        after = arrival(plan_of("user: q", tool_call("c"), tool_result("c", text)))
        assert touched(after) == []

    def test_takes_shorter_logs_and_only_by_lines(self):
        """Their lines say the same again and again."""
        short = "\n".join(LOG.splitlines()[:30])
        after = arrival(plan_of("user: q", tool_call("c"), tool_result("c", short)))
        assert touched(after) == ["m2:0"]
        assert set(after.messages()[2]["content"].splitlines()) <= set(short.splitlines())

    def test_leaves_everything_else(self):
        """System, user, assistant, tool calls: however long they are."""
        plan = plan_of(
            f"system: {PROSE}", f"user: {PROSE}", f"assistant: {PROSE}", tool_call("c", arguments=PROSE, text=PROSE),
            tool_result("c", "ok"), f"user: {PROSE}",
        )  # fmt: skip
        assert arrival(plan) is plan

    def test_leaves_what_was_sent_before(self):
        """Frozen means frozen."""
        plan = plan_of("user: q", tool_call("c"), tool_result("c", PROSE), "user: q2", frozen=("m0", "m1", "m2"))
        assert arrival(plan) is plan

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [("read_file", "{}"), ("view", "{}"), ("ctx_restore", "{}"), ("bash", '{"command": "cd x && cat notes.md"}')],
    )
    def test_leaves_exact_quotes(self, name, arguments):
        """What is read to be edited, and what was restored, must be word for word."""
        plan = plan_of("user: q", tool_call("c", name=name, arguments=arguments), tool_result("c", PROSE))
        assert arrival(plan) is plan

    def test_does_not_prune_twice(self):
        """A second pass over the same plan finds nothing to do."""
        once = arrival(plan_of("user: q", tool_call("c"), tool_result("c", PROSE * 3)))
        assert arrival(once) is once


class TestEpoch:
    def test_shortens_history_oldest_first_until_the_target(self):
        """Not more than it takes."""
        said = [text for i in range(8) for text in (f"user: {PROSE} {i}", f"assistant: a{i}")]
        plan = plan_of(*said, "user: now?", limit=7000)
        after = epoch(plan)
        assert after.tokens <= 3500 < plan.tokens
        assert touched(after) == [f"m{2 * i}:0" for i in range(len(touched(after)))]
        assert 0 < len(touched(after)) < 8

    def test_does_nothing_below_the_target(self):
        """There is room."""
        plan = plan_of(f"user: {PROSE}", "assistant: a", "user: now?", limit=100_000)
        assert epoch(plan) is plan

    def test_leaves_the_exchange_to_act_on(self):
        """And the newest question, pinned or not."""
        plan = plan_of("user: q", tool_call("c"), tool_result("c", PROSE), limit=100)
        assert epoch(plan) is plan

    def test_shortens_small_turns(self):
        """A conversation is made of them."""
        small = " ".join(PROSE.split()[:40])
        plan = plan_of(f"user: {small}", "assistant: a", "user: now?", limit=40)
        assert touched(epoch(plan)) == ["m0:0"]

    def test_leaves_assistant_text(self):
        """The model's own words stay its own."""
        plan = plan_of("user: q", f"assistant: {PROSE}", "user: now?", limit=40)
        assert epoch(plan) is plan


class TestScoring:
    def test_all_texts_are_scored_in_one_call(self):
        """A worker is asked once a request."""
        scorer = LengthScorer()
        calls = [tool_call("a", "b"), tool_result("a", PROSE), tool_result("b", PROSE + " end")]
        SelectiveContext(scorer)(plan_of("user: q", *calls))
        assert scorer.calls == [(PROSE, PROSE + " end")]

    @pytest.mark.parametrize(
        "scorer",
        [DeadScorer(), DeadScorer(ModelError("no such model")), LengthScorer(pace=9, name="slow")],
        ids=["away", "missing", "slow"],
    )
    def test_without_its_scorer_it_goes_on_and_says_so(self, scorer):
        """The words alone decide, and the report names who should have."""
        plan = plan_of("user: q", tool_call("c"), tool_result("c", PROSE))
        after = SelectiveContext(scorer)(plan)
        assert "lexical" in after.decisions[0].why
        assert scorer.name in after.decisions[0].why
        assert after.segments == SelectiveContext(Lexical())(plan).segments

    def test_a_bug_in_a_scorer_is_not_hidden(self):
        """Only what says it is out of reach is stood in for."""
        with pytest.raises(ZeroDivisionError):
            SelectiveContext(DeadScorer(ZeroDivisionError()))(
                plan_of("user: q", tool_call("c"), tool_result("c", PROSE))
            )

    def test_what_cannot_be_done_in_time_is_left(self):
        """With the reason, and the rest is done."""
        calls = [tool_call("a", "b"), tool_result("a", PROSE), tool_result("b", PROSE * 100)]
        after = arrival(plan_of("user: q", *calls))
        assert touched(after) == ["m2:0"]
        assert [d.why for d in after.decisions if d.action == "skip"] == ["deadline: 1 left as they were"]

    def test_a_refusal_is_reported(self):
        """A result that is all code fences inside prose cannot be shortened, and the report says why."""
        mostly_fenced = "See this. " + f"```\n{PROSE}\n```"
        after = arrival(plan_of("user: q", tool_call("c"), tool_result("c", mostly_fenced)))
        assert [d.why for d in after.decisions] == ["hard_spans_over_budget: 1 left as they were"]


@pytest.mark.parametrize("knobs", [{"keep": 0}, {"keep": 1.1}, {"keep": True}, {"target": 0}, {"target": float("nan")}])
def test_knobs_are_checked(knobs):
    """When the policy is built."""
    with pytest.raises(InvalidInput):
        SelectiveContext(LengthScorer(), **knobs)
