"""Compressing once, without a session."""

from __future__ import annotations

import json

import pytest

from ctxmem.compressors.compress import compress
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.testing import DeadScorer, WordCounter, messages, tool_call, tool_result, turns

COUNT = WordCounter()
PROSE = " ".join(
    f"The ship {i} of captain Name{i} came to the harbour in {1800 + i}, and then it left." for i in range(30)
)


def small(source, **how):
    return compress(source, counter=COUNT, scorer=Lexical(), **how)


class TestText:
    @pytest.mark.parametrize("budget", [5, 50, 200, 400])
    def test_fits_the_budget(self, budget):
        """Counted by the target model's own tokenizer."""
        result = small(PROSE, budget=budget)
        assert result.tokens_before == len(PROSE.split())
        assert result.tokens_after == len(result.text.split()) <= budget
        assert result.reason == ""

    def test_says_what_was_dropped(self):
        """The dropped spans and the text make up the source."""
        result = small(PROSE, ratio=0.5)
        dropped = sum(len(PROSE[cut.start : cut.end].split()) for cut in result.dropped)
        assert dropped == result.tokens_before - result.tokens_after
        assert {cut.why for cut in result.dropped} == {"tells little"}

    @pytest.mark.parametrize(
        ("text", "how", "reason"),
        [
            ("short", {"budget": 10}, "within_budget"),
            ("", {"ratio": 0.5}, "within_budget"),
            (" \n ", {"ratio": 0.5}, "within_budget"),
            ("word", {"ratio": 0.5}, "budget_too_small"),
            ("!!! !!! !!!", {"budget": 1}, "nothing_to_prune"),
            ('{"a": "b c d e f"}', {"budget": 2}, "nothing_to_prune"),
            ('{"a": "b c d e f"', {"budget": 2}, "data"),
            ("def f(x):\n    y = x\n    return y", {"budget": 2}, "code"),
            ("```\na b c d e f\n```", {"budget": 2}, "hard_spans_over_budget"),
        ],
    )
    def test_comes_back_unchanged_with_the_reason(self, text, how, reason):
        """Where it cannot help it does no harm."""
        result = small(text, **how)
        assert (result.text, result.reason, result.dropped) == (text, reason, ())
        assert result.tokens_before == result.tokens_after

    def test_what_fits_is_not_even_scored(self):
        """A model's time is for what needs it."""
        assert compress("short", counter=COUNT, scorer=DeadScorer(), budget=5).reason == "within_budget"

    def test_json_is_not_scored_either(self):
        """It goes by its structure."""
        rows = json.dumps([{"name": f"row {i}"} for i in range(99)])
        done = compress(rows, counter=COUNT, scorer=DeadScorer(), ratio=0.5)
        assert (done.reason, done.scored_by) == ("", "structure")
        assert json.loads(done.text)

    def test_a_scorer_out_of_reach_is_an_error(self):
        """The caller named it; nothing else is put in its place unasked."""
        with pytest.raises(Unavailable):
            compress(PROSE, counter=COUNT, scorer=DeadScorer(), budget=5)

    @pytest.mark.parametrize("unit", ["phrase", "sentence", "block"])
    def test_by_any_unit(self, unit):
        """Coarser units keep whole sentences or paragraphs."""
        result = small(PROSE.replace(". ", ".\n"), ratio=0.5, unit=unit)
        assert 0 < result.tokens_after <= result.tokens_before / 2


class TestMessages:
    def test_history_is_pruned_before_anything_leaves(self):
        """Every message is still there."""
        said = messages("system: s", f"user: {PROSE}", "assistant: a", "user: q")
        result = small(said, ratio=0.6)
        assert len(result.messages) == 4
        assert result.tokens_after == COUNT.request(result.messages) <= 0.6 * result.tokens_before
        assert result.messages[3].raw == said[3].raw

    @pytest.mark.parametrize("ratio", [0.5, 0.6, 0.7, 0.8, 0.9])
    def test_pruning_alone_meets_the_budget_where_it_can(self, ratio):
        """Nobody loses a whole turn for the sake of one token."""
        said = messages("user: q", tool_call("a"), tool_result("a", PROSE), "assistant: a", f"user: {PROSE}", "user: q")
        assert len(small(said, ratio=ratio).messages) == len(said)

    def test_then_the_oldest_turns_leave(self):
        """When pruning is not enough."""
        result = small(turns(40, words=30), budget=300)
        assert result.tokens_after <= 300
        assert "oldest" in {cut.why for cut in result.dropped}
        assert result.messages[1].role == "user"

    def test_offsets_count_through_all_texts(self):
        """So that the dropped text can be shown."""
        said = [
            {"role": "user", "content": "old words here"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "q"},
        ]
        result = small(said, budget=10)
        whole = "".join(m["content"] for m in said)
        assert [whole[cut.start : cut.end] for cut in result.dropped] == ["old words here", "yes"]
        assert [m.text for m in result.messages] == ["q"]

    def test_tool_pairs_stay_pairs(self):
        """Whatever leaves."""
        said = ["user: q", tool_call("a"), tool_result("a", PROSE), "assistant: ok", "user: now"]
        result = small(messages(*said), budget=30)
        roles = [m.role for m in result.messages]
        assert roles.count("tool") == sum(bool(m.tool_call_ids) for m in result.messages)

    def test_what_cannot_fit_comes_back_unchanged(self):
        """A question larger than the budget is not cut."""
        said = messages(f"user: {PROSE}")
        result = small(said, budget=10)
        assert (result.reason, [m.raw for m in result.messages]) == ("budget_too_small", [m.raw for m in said])

    def test_messages_that_fit_come_back_as_they_are(self):
        """Not a byte is touched."""
        said = messages("user: hi")
        assert [m.raw for m in small(said, budget=100).messages] == [said[0].raw]

    def test_no_messages(self):
        """Nothing in, nothing out."""
        assert small([], budget=100).messages == ()

    def test_old_json_results_are_shortened(self):
        """By their structure; the pair of call and result stays one."""
        rows = json.dumps([{"name": f"row {i}", "size": i} for i in range(400)], indent=1)
        asked = messages("user: Look.", tool_call("c1"), tool_result("c1", rows), "assistant: ok", "user: Now?")
        done = small(asked, ratio=0.5)
        (left,) = [one for one in done.messages if one.role == "tool"]
        assert done.tokens_after <= done.tokens_before / 2
        assert 0 < len(json.loads(left.text)) < 400


class TestBadInput:
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"budget": 5, "ratio": 0.5},
            *({"ratio": bad} for bad in (0, -1, 1.01, True, float("nan"), float("inf"), "half")),
            *({"budget": bad} for bad in (0, -5, True, 1.5, "many")),
            {"budget": 5, "unit": "word"},
        ],
        ids=str,
    )
    def test_is_refused(self, how):
        """With the name of the argument."""
        with pytest.raises(InvalidInput) as caught:
            small("some text", **how)
        assert caught.value.param in ("budget", "ratio", "unit")

    def test_a_malformed_message_is_named(self):
        """By its place."""
        with pytest.raises(InvalidInput) as caught:
            small([{"role": "user", "content": "a"}, {"role": "robot"}], budget=5)
        assert caught.value.param == "messages.1.role"
