"""Scopes fold: before them nothing changes, inside only what users said is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxmem.compressors.pencil.check import loose
from ctxmem.compressors.pencil.fold import Fold
from ctxmem.compressors.pencil.foreign import pending
from ctxmem.compressors.pencil.marks import Mark, line, read
from ctxmem.plan import ContextPlan, layout
from ctxmem.testing import WordCounter, messages, tool_call, tool_result
from ctxmem.types import UNLIMITED

LONG = "The log says that nothing happened at all in these many lines. " * 12


def begin(id: str, task: str = "find the bug", *more: str) -> list[dict[str, Any]]:
    """An agent begins a subtask."""
    call = tool_call(id, *more, name="begin_subtask", arguments=json.dumps({"task": task}))
    return [call, *(tool_result(one, "opened") for one in (id, *more))]


def give(id: str, answer: str = "parse() is off by one") -> list[dict[str, Any]]:
    """It returns."""
    call = tool_call(id, name="return_answer", arguments=json.dumps({"answer": answer}))
    return [call, tool_result(id, "returned")]


def work(id: str) -> list[dict[str, Any]]:
    """A call and its long result."""
    return [tool_call(id), tool_result(id, LONG)]


def plan_of(*said: Any, frozen: frozenset[str] = frozenset()) -> ContextPlan:
    return layout(messages(*said), UNLIMITED, WordCounter(), frozen=frozen)


def texts(plan: ContextPlan) -> list[str]:
    return [message.text or "call" for message in plan.render()]


ONE = ["system: Help.", "user: Fix it.", *begin("b"), *work("w1"), *work("w2"), *give("r")]


class TestOwnCalls:
    def test_a_subtask_that_returned_is_its_answer(self) -> None:
        """The call that began it stays with its result; the answer follows, and nothing between."""
        before = plan_of(*ONE, "assistant: Now I fix it.")
        after = Fold(auto=True)(before)
        answer = "[result of the subtask] parse() is off by one"
        assert texts(after) == ["Help.", "Fix it.", "call", "opened", answer, "Now I fix it."]
        assert after.tokens == after.exact < before.tokens / 4
        assert after.render()[:4] == before.render()[:4]
        assert after.decisions[0].action == "fold"

    def test_a_subtask_ends_once(self) -> None:
        """What began it still stands there: another return without an answer has nothing to end."""
        said = [*ONE, "assistant: Now I fix it.", *work("w3"), *give("again", "")]
        once = Fold(auto=True)(plan_of(*said))
        assert "[result of the subtask] parse() is off by one" in texts(once)
        assert Fold(auto=True)(once).segments == once.segments

    def test_without_auto_an_agents_calls_mean_nothing(self) -> None:
        assert Fold()(plan_of(*ONE)).decisions == ()

    def test_nested_subtasks_fold_into_the_outer_one(self) -> None:
        """One decision for both."""
        said = [
            "user: Go.",
            *begin("b1"),
            *begin("b2", "inner"),
            *work("w"),
            *give("r2", "inner done"),
            *give("r1", "all done"),
        ]
        after = Fold(auto=True)(plan_of(*said))
        assert texts(after) == ["Go.", "call", "opened", "[result of the subtask] all done"]
        assert len(after.decisions) == 1

    def test_an_inner_subtask_folds_while_the_outer_goes_on(self) -> None:
        said = ["user: Go.", *begin("b1"), *begin("b2", "inner"), *work("w"), *give("r2", "inner done"), *work("w2")]
        after = texts(Fold(auto=True)(plan_of(*said)))
        assert "[result of the subtask] inner done" in after
        assert after[-1].startswith("The log")

    def test_what_a_user_says_inside_stays(self) -> None:
        """Word for word, after the answer."""
        said = ["user: Go.", *begin("b"), *work("w1"), "user: Never touch main.", *work("w2"), *give("r"), "user: And?"]
        after = Fold(auto=True)(plan_of(*said))
        assert texts(after)[-3:] == ["[result of the subtask] parse() is off by one", "Never touch main.", "And?"]

    def test_a_return_whose_call_waits_folds_nothing(self) -> None:
        """The answer to the waiting call would have no call."""
        said = [
            "user: Go.",
            *begin("b"),
            *work("w"),
            tool_call("r", "x", name="return_answer", arguments='{"answer": "a"}'),
        ]
        assert Fold(auto=True)(plan_of(*said, tool_result("r", "returned"))).decisions == ()

    def test_a_call_that_was_never_answered_does_not_block(self) -> None:
        """Somebody spoke after it: no answer can come."""
        said = ["user: Go.", *begin("b"), *work("w"), tool_call("lost"), "assistant: That tool died.", *give("r")]
        assert len(Fold(auto=True)(plan_of(*said)).decisions) == 1

    @pytest.mark.parametrize(
        "said",
        [
            [*begin("b"), *work("w")],
            [*work("w"), *give("r")],
            [*begin("b", "t", "x"), *work("w"), *give("r")],
            [tool_call("b", name="begin_subtask", arguments="{not json"), *work("w")],
            [*begin("b"), *give("r", "")],
            ["user: [subtask: x]", *work("w"), "user: [result: y]"],
            [*work("w"), tool_result("w", '{"name": "return_answer"}')],
        ],
        ids=[
            "open",
            "never begun",
            "begun beside another call",
            "broken",
            "no answer",
            "a user's words",
            "a tool's words",
        ],
    )
    def test_what_is_no_scope_is_left_alone(self, said: list[Any]) -> None:
        before = plan_of("user: Go.", *said)
        assert Fold(auto=True)(before) is before

    def test_a_handoff_folds_when_it_is_handed_back(self) -> None:
        """The sub-agent's last words are the answer."""
        back = tool_call("h2", name="transfer_back_to_boss")
        said = ["user: Go.", tool_call("h", name="transfer_to_math"), tool_result("h", "ok"), *work("w")]
        said += ["assistant: It is 42.", back, tool_result("h2", "back")]
        assert texts(Fold(auto=True)(plan_of(*said)))[-1] == "[result of the subtask] It is 42."

    def test_lines_of_the_assistant_are_marks(self) -> None:
        """For models without tools."""
        said = [
            "user: Go.",
            "assistant: [subtask: look]",
            f"user: {LONG}",
            f"assistant: {LONG}",
            "assistant: [result: 7]",
        ]
        after = texts(Fold(auto=True)(plan_of(*said)))
        assert after == ["Go.", "[subtask: look]", LONG, "[result of the subtask] 7"]

    def test_a_fold_that_saves_too_little_is_not_made(self) -> None:
        """It would cost the cache of what was sent."""
        said = ["user: Go.", *begin("b"), *give("r", "yes")]
        assert Fold(auto=True)(plan_of(*said)).decisions == ()


class TestFrozen:
    def test_what_was_sent_waits(self) -> None:
        """Unless its end has just arrived: then the manager opens it."""
        sent = frozenset(f"m{i}" for i in range(8))
        plan = plan_of(*ONE, frozen=sent)
        fold = Fold(auto=True)
        assert fold(plan).decisions == ()
        opened = plan.open(fold.ended_now(plan))
        assert [s.id for s in opened.segments if s.frozen] == ["m0:0", "m1:0", "m2:0", "m3:0"]
        assert len(fold(opened).decisions) == 1

    def test_an_end_that_was_sent_opens_nothing(self) -> None:
        """Its fold waits for the next epoch."""
        plan = plan_of(*ONE, frozen=frozenset(f"m{i}" for i in range(10)))
        assert Fold(auto=True).ended_now(plan) == frozenset()


class TestMarks:
    @pytest.mark.parametrize("act", ["open", "return", "tail", "abort"])
    def test_a_mark_reads_back(self, act: Any) -> None:
        mark = Mark(act, "f12", "two\nlines [result of f1] x")
        assert read(line(mark)) == mark

    def test_other_text_is_no_mark(self) -> None:
        assert [read(text) for text in ("", "[subtask] x", "[result f1] x", "see [subtask f1] x")] == [None] * 4


class TestPending:
    def test_calls_wait_until_answered_or_passed_over(self) -> None:
        assert pending(messages("user: Go.", tool_call("a", "b"), tool_result("a", "1"))) == ("b",)
        assert pending(messages(tool_call("a"), tool_result("a", "1"))) == ()
        assert pending(messages(tool_call("a"), "user: Stop.")) == ()


class TestCheck:
    def test_what_nobody_saw_is_named(self) -> None:
        """Numbers, addresses, paths, quotations."""
        seen = ['GET https://a.example/x gave 200 in src/app.py: "not found"']
        assert loose('https://a.example/x gave 200, src/app.py says "not found"', seen) == ()
        assert loose('see https://b.example/y, 404, src/lib.py: "gone away"', seen) == (
            "https://b.example/y",
            "404",
            "src/lib.py",
            "gone away",
        )
