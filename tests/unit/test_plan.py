"""The verbs of the plan: each returns a new plan, writes one decision, and protects what is locked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import TransformError
from ctxmem.plan import ContextPlan, layout
from ctxmem.testing import WordCounter, messages, tool_call, tool_result, turns
from ctxmem.types import Budget, Segment

COUNT = WordCounter()


def plan_of(*said, limit: int = 1000, frozen: tuple[str, ...] = ()) -> ContextPlan:
    return layout(messages(*said), Budget(limit), COUNT, frozen=frozen)


@pytest.fixture
def chat() -> ContextPlan:
    """A system message, an old turn with a tool exchange, and a question."""
    return plan_of(
        "system: Be brief.",
        "user: What is the weather?",
        tool_call("c1"),
        tool_result("c1", "sunny and warm today"),
        "assistant: Sunny.",
        "user: And tomorrow?",
    )


class TestLayout:
    def test_sizes_add_up_to_the_rendered_request(self, chat):
        """The sum over segments, and what belongs to none, is the counter's own count of the request."""
        assert chat.tokens == chat.exact == COUNT.request(chat.sources)

    def test_tools_are_counted(self):
        """The request's tools are part of its size."""
        said = messages("user: hi")
        with_tools = layout(said, Budget(100), COUNT, tools=b'[{"type": "function"}]')
        assert with_tools.tokens == layout(said, Budget(100), COUNT).tokens + 2

    def test_system_and_newest_question_are_pinned(self, chat):
        """Nothing else is."""
        assert [s.id for s in chat.segments if s.pinned] == ["m0:0", "m5:0"]

    def test_a_call_and_its_results_share_a_group(self, chat):
        """So that neither is ever sent without the other."""
        assert [s.group for s in chat.segments] == ["m0", "m1", "m2", "m2", "m4", "m5"]

    def test_a_reused_call_id_belongs_to_the_newest_call(self):
        """Agents that number calls from 0 each turn do not tie their turns together."""
        plan = plan_of(tool_call("c0"), tool_result("c0", "a"), tool_call("c0"), tool_result("c0", "b"))
        assert [s.group for s in plan.segments] == ["m0", "m0", "m2", "m2"]

    def test_parts_of_a_message_are_segments_of_one_group(self):
        """A message with several parts is one thing that can be shortened in places."""
        parts = [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {"url": "x"}}]
        plan = plan_of({"role": "user", "content": parts})
        assert [(s.id, s.kind, s.group) for s in plan.segments] == [("m0:0", "text", "m0"), ("m0:1", "opaque", "m0")]
        assert plan.tokens == plan.exact

    def test_query_is_the_newest_question(self, chat):
        """Recall asks with it."""
        assert chat.query == "And tomorrow?"

    def test_untouched_messages_keep_their_bytes(self, chat):
        """Nothing is dumped anew that was not edited."""
        assert [m.raw for m in chat.render()] == [m.raw for m in chat.sources]

    def test_an_empty_plan_is_empty(self):
        """No messages, no segments, no query."""
        plan = plan_of()
        assert (plan.segments, plan.messages(), plan.query, plan.tokens) == ((), [], "", COUNT.prompt)


class TestDrop:
    def test_takes_whole_groups_and_says_so(self, chat):
        """Dropping a call's result drops the call."""
        after = chat.drop({"m3:0"}, step="t", why="w")
        assert [s.id for s in after.segments] == ["m0:0", "m1:0", "m4:0", "m5:0"]
        (decision,) = after.decisions
        assert (decision.action, decision.segments) == ("drop", ("m2:0", "m3:0"))
        assert after.tokens == chat.tokens + decision.tokens == after.exact

    def test_leaves_the_old_plan_as_it_was(self, chat):
        """A plan is a value."""
        before = (chat.segments, chat.decisions)
        chat.drop(["m1:0"], step="t", why="w")
        assert (chat.segments, chat.decisions) == before

    @pytest.mark.parametrize("id", ["m0:0", "m5:0"])
    def test_refuses_pinned(self, chat, id):
        """The verbs protect them, not good manners."""
        with pytest.raises(TransformError, match="pinned"):
            chat.drop([id], step="t", why="w")

    def test_refuses_a_group_with_a_frozen_member(self):
        """A frozen result keeps its call."""
        plan = plan_of(tool_call("c"), tool_result("c", "x"), "user: q", frozen=("m1",))
        with pytest.raises(TransformError, match="frozen"):
            plan.drop(["m0:0"], step="t", why="w")

    def test_refuses_unknown_ids(self, chat):
        """A typo is an error, not a silent nothing."""
        with pytest.raises(TransformError, match="m9:9"):
            chat.drop(["m9:9"], step="t", why="w")


class TestRewrite:
    def test_counts_the_new_text(self, chat):
        """The plan counts; transforms do not."""
        after = chat.rewrite({"m3:0": "sunny"}, step="t", why="w")
        assert after.tokens == chat.tokens - 3 == after.exact
        assert after.decisions[-1].tokens == -3
        assert after.messages()[3] == {"role": "tool", "tool_call_id": "c1", "content": "sunny"}

    def test_refuses_tool_calls(self, chat):
        """Arguments are not prose."""
        with pytest.raises(TransformError, match="only text"):
            chat.rewrite({"m2:0": "{}"}, step="t", why="w")

    def test_refuses_frozen_until_opened(self):
        """What was sent is sent again as it was, until an epoch."""
        plan = plan_of("user: a b", "user: q", frozen=("m0",))
        with pytest.raises(TransformError, match="frozen"):
            plan.rewrite({"m0:0": "a"}, step="t", why="w")
        assert plan.open().rewrite({"m0:0": "a"}, step="t", why="w").messages()[0]["content"] == "a"

    def test_keeps_the_rest_of_an_edited_message(self):
        """Only the text changes: other fields and parts stay."""
        said = {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a b", "x": 1}], "extra": [1]}
        plan = plan_of(said, "user: q").rewrite({"m0:0": "b"}, step="t", why="w")
        assert plan.messages()[0] == {**said, "content": [{"type": "text", "text": "b", "x": 1}]}


class TestFold:
    def test_puts_one_in_the_place_of_several(self, chat):
        """The fold stands for the events it took in."""
        into = Segment("fold1", "assistant", "fold", "It was sunny.", 0)
        after = chat.fold(["m1:0", "m2:0", "m3:0", "m4:0"], into, step="t", why="w")
        assert [s.id for s in after.segments] == ["m0:0", "fold1", "m5:0"]
        assert after.segments[1].sources == ("m1", "m2", "m3", "m4")
        assert after.tokens == after.exact == chat.tokens + after.decisions[-1].tokens

    def test_refuses_to_tear_a_group(self, chat):
        """A result would be left without its call."""
        with pytest.raises(TransformError, match="whole groups"):
            chat.fold(["m2:0"], Segment("f", "assistant", "fold", "x", 0), step="t", why="w")


class TestInsert:
    def test_counts_what_came_in(self, chat):
        """A recalled segment costs what it costs."""
        new = Segment("r1", "system", "retrieved", "one two three", 0)
        after = chat.insert([new], 5, step="t", why="w")
        assert after.tokens == after.exact == chat.tokens + 6
        assert after.messages()[5] == {"role": "system", "content": "one two three"}

    def test_refuses_a_taken_id(self, chat):
        """Ids are unique in a plan."""
        with pytest.raises(TransformError, match="new"):
            chat.insert([chat.segments[1]], 5, step="t", why="w")

    def test_refuses_a_place_before_frozen_segments(self):
        """That would break the prefix that was sent."""
        plan = plan_of("user: a", "user: b", frozen=("m0",))
        with pytest.raises(TransformError, match="frozen"):
            plan.insert([Segment("r", "user", "retrieved", "x", 0)], 0, step="t", why="w")


class TestLaws:
    @given(st.integers(1, 12), st.data())
    def test_every_edit_adds_up(self, number, data):
        """After any drops and rewrites: sizes add up, pinned stay, and the decisions account for every token."""
        plan = layout(turns(number), Budget(10_000), COUNT)
        free = [s.id for s in plan.segments if not s.locked]
        for id in data.draw(st.lists(st.sampled_from(free), unique=True)):
            if data.draw(st.booleans()):
                plan = plan.drop([id], step="t", why="w")
            else:
                words = data.draw(st.integers(0, 12))
                plan = plan.rewrite({id: " ".join(["x"] * words)}, step="t", why="w")
        assert plan.tokens == plan.exact
        laid_out = COUNT.request(plan.sources)
        assert plan.tokens == laid_out - plan.report.saved
        assert [s for s in plan.original if s.pinned] == [s for s in plan.segments if s.pinned]

    def test_skip_changes_nothing_but_the_record(self, chat):
        """A step that did nothing says why."""
        after = chat.skip(step="t", why="no need")
        assert (after.segments, after.decisions[-1].why) == (chat.segments, "no need")
        assert "no need" in str(after.report)

    def test_messages_are_plain_json(self, chat):
        """They go straight to a client."""
        assert json.loads(json.dumps(chat.messages())) == chat.messages()
