"""The ladder rung by rung: which answers of a model each of them reads, and what is left when none does."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmem.compressors.mem1.apply import Turn
from ctxmem.compressors.mem1.ladder import Updater
from ctxmem.compressors.mem1.log import Change, after
from ctxmem.compressors.mem1.ops import Op, parse
from ctxmem.compressors.mem1.prompts import Mode
from ctxmem.compressors.mem1.state import Item, State, begin
from ctxmem.effects import Answer, Ask, Failed
from ctxmem.testing import WordCounter

COUNT = WordCounter()
TURNS = (Turn("e1", "obs", "The harbour opens at 7:30 on weekdays."),)
GOOD = '{"ops": [{"op": "add", "sec": "facts", "text": "the harbour opens at 7:30"}]}'


def held() -> State:
    """A state with a goal, a pin and one item."""
    state = begin("Find the hours", ["Never call ahead"], 120, COUNT)
    for change in Updater().extracted(state, (Turn("e0", "obs", "The museum is closed on Mondays."),), COUNT):
        state = after(state, change.kind, change.payload)
    return state


def updated(
    state: State, answers: Sequence[Answer], mode: Mode = "patch", turns: Sequence[Turn] = TURNS
) -> tuple[tuple[Change, ...], list[Ask]]:
    """The changes that some answers lead to, and what was asked."""
    steps, asked, waiting = Updater(mode, ask=True).update(state, turns, COUNT), [], iter(answers)
    effect = next(steps)
    while True:
        assert isinstance(effect, Ask)
        asked.append(effect)
        try:
            effect = steps.send(next(waiting))
        except StopIteration as done:
            return done.value, asked


def applied(state: State, changes: Sequence[Change]) -> State:
    for change in changes:
        state = after(state, change.kind, change.payload)
    return state


def rung(changes: Sequence[Change]) -> str:
    """What brought the state up to date."""
    return next(str(c.payload["by"]) for c in changes if c.kind in ("patch", "rewrite"))


READ = {
    "1": [GOOD, f"Sure:\n{GOOD}\nDone.", '{"ops": ["+ facts: it opens at 7:30"]}', '[{"op": "add", "text": "7:30"}]'],
    "2": [
        GOOD[:-2],
        GOOD[:-4],
        GOOD.replace("}]", "},]"),
        f"```json\n{GOOD[:-1]}\n```",
        GOOD.replace('"', "'"),
        '{"op": "add", "text": "7:30"}',
        '{"ops": [17, {"op": "fly"}, {"op": "add", "text": "7:30"}]}',
        '{"ops": [{"op": "add", "text": "Error: 500"}, {"op": "add", "text": "7:30"}]}',
    ],
    "3": [
        "+ facts: it opens at 7:30",
        "I noted:\n+ facts 2: 7:30\nthat is all",
        '{"ops": "none"}\n+ 7: x\n+ open: 7:30',
    ],
    "4": ["<fact>7:30", "<facts>- 7:30\n- weekdays</facts>", '<item sec="open">7:30</item>', "<fact>7:30<fact>8:30"],
    "5": [
        "<think>It opens at 7:30.</think>",
        "<IS>It opens at 7:30",
        "<summary>7:30 it is.</wrong>",
        "<think>Yes. 7:30",
    ],
}
"""Answers that are malformed for every rung before the one that reads them."""

UNREADABLE = (
    "",
    " \n\t",
    "null",
    "The harbour opens at 7:30.",
    "{" * 50_000,
    "[" * 100_000,
    '{"ops": [[[[]]]]}',
    '{"ops": {"op": "add", "text": "7:30"}}',
    '{"ops": [{"op": "add"}, {"op": "set", "id": 7}, {"op": "del"}]}',
    '{"ops": [{"op": "add", "text": ""}, {"op": "add", "text": ["x"]}, {"op": "add", "text": null}]}',
    "<fact></fact><think></think><IS>  </IS>",
    "</info></state></IS>",
    "Error: 500 Internal Server Error",
    "<think>Error: 500 Internal Server Error</think>",
    "+ facts: Traceback (most recent call last)",
    "x" * 100_000,
    "<" * 100_000,
    "\0\ud800\x1b[2J",
)


@pytest.mark.parametrize(("name", "answer"), [(name, one) for name, some in READ.items() for one in some])
def test_each_rung_reads_what_those_before_it_cannot(name: str, answer: str) -> None:
    """The state has it, and what was there before."""
    changes, asked = updated(held(), [answer])
    assert (rung(changes), len(asked)) == (name, 1)
    state = applied(held(), changes)
    assert "7:30" in state.text()
    assert "museum" in state.text()


@pytest.mark.parametrize("answer", [*UNREADABLE, Failed("timeout"), Failed("RuntimeError: boom")])
class TestBelow:
    def test_the_sixth_asks_once_more_and_says_what_was_wrong(self, answer: Answer) -> None:
        """And reads the second answer as it would have read the first."""
        changes, (_, again) = updated(held(), [answer, GOOD])
        assert rung(changes) == "6.1"
        assert "could not be read" in again.messages[-1].text
        assert len(again.messages[-1].text) < 2_000

    @pytest.mark.parametrize("mode", ["patch", "rewrite"])
    def test_the_seventh_extracts(self, answer: Answer, mode: Mode) -> None:
        """It says why, and takes in what was said."""
        changes, asked = updated(held(), [answer, answer], mode)
        assert len(asked) == 2
        assert [c.payload["rung"] for c in changes if c.kind == "degraded"] == ["7"]
        state = applied(held(), changes)
        assert "7:30" in state.text() and "museum" in state.text()
        assert state.tokens <= state.bound

    def test_the_eighth_keeps_the_state(self, answer: Answer) -> None:
        """When there is nothing to extract either."""
        changes, _ = updated(held(), [answer, answer], turns=(Turn("e1", "obs", " "),))
        assert [c.payload.get("rung") for c in changes] == ["8"]
        assert applied(held(), changes).items == held().items


@pytest.mark.parametrize("text", ["", "word " * 20_000, "x" * 100_000])
@pytest.mark.parametrize("form", ["{}", "<IS>{}</IS>", "+ facts: {}", "json"])
@pytest.mark.parametrize("mode", ["patch", "rewrite"])
def test_empty_and_endless_summaries(text: str, form: str, mode: Mode) -> None:
    """The bound holds, and goal and pins stay."""
    answer = json.dumps({"ops": [{"op": "add", "text": text}]}) if form == "json" else form.format(text)
    state = applied(held(), updated(held(), [answer, answer], mode)[0])
    assert state.items
    assert state.tokens == COUNT.texts([state.text()])[0] <= state.bound
    assert (state.goal, state.pins) == ("Find the hours", ("Never call ahead",))


_WIRE = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["add", "set", "del", "i1", "goal"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ops", "op", "sec", "id", "text", "prio", "src"]), inner, max_size=5)
    ),
    max_leaves=12,
)
_TAGS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<IS>", "<fact>", "</state>", '{"ops":[', "]}", "+ facts: ", "- i1", "a.", "\n"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(st.text(max_size=60) | _TAGS | _WIRE.map(json.dumps), min_size=2, max_size=2))
@pytest.mark.parametrize("mode", ["patch", "rewrite"])
def test_no_answer_at_all_breaks_the_state(mode: Mode, answers: list[str]) -> None:
    """Whatever it is made of: never empty, within its bound, goal and pins as they were, no tag in it."""
    state = applied(held(), updated(held(), answers, mode)[0])
    assert state.items
    assert state.tokens == COUNT.texts([state.text()])[0] <= state.bound
    assert (state.goal, state.pins) == ("Find the hours", ("Never call ahead",))
    assert "<" not in state.text()
    assert all(isinstance(item, Item) and "\n" not in item.line for item in state.items)


def test_an_operation_on_what_is_not_there_changes_nothing_else() -> None:
    """Goal and pins have no id; unknown ids are no items."""
    ops = [{"op": "del", "id": id} for id in ("goal", "pins", "i99", "")]
    assert applied(held(), updated(held(), [json.dumps({"ops": ops})])[0]).items == held().items
    assert parse('{"ops": [{"op": "del", "id": "i1"}]}').ops == (Op("del", id="i1"),)
