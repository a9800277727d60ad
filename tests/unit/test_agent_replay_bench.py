"""The replay of recorded agents: its validator sees what is broken, its values are those of the calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.agent_replay import broken_pairs, replay, values
from bench.cachesim import Sizes
from bench.synthetic import tool_trace
from ctxmem import chat
from ctxmem.testing import tool_call, tool_result
from ctxmem.tokens.resolve import counter_for

USER = {"role": "user", "content": "Go on."}


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        ([USER, tool_call("a"), tool_result("a", "x"), USER], 0),
        ([tool_call("a"), USER, tool_result("a", "x")], 2),
        ([tool_result("a", "x")], 1),
        ([tool_call("a")], 1),
        ([tool_call("a"), tool_result("a", "x"), tool_result("a", "x")], 1),
        ([tool_call("a"), tool_call("b"), tool_result("b", "x")], 1),
    ],
)
def test_the_validator_is_strict(messages: list[dict[str, Any]], wrong: int) -> None:
    """A result right after its call, one for each."""
    assert broken_pairs([chat.parse(message) for message in messages]) == wrong


def test_values_are_the_leaves_of_a_call() -> None:
    """Of calls in the API's form and in text; of commands the paths, numbers and quotations."""
    function = {"name": "book", "arguments": json.dumps({"user": "mia_li", "legs": [{"flight": "HAT136"}], "n": 2})}
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }
    assert values(chat.parse(called)) == ["mia_li", "HAT136"]
    written = '<tool_call>{"name": "visit", "arguments": {"url": "http://a.b"}}</tool_call>'
    assert values(chat.parse({"role": "assistant", "content": written})) == ["http://a.b"]
    assert values(chat.parse({"role": "assistant", "content": "open src/parse.py"})) == ["src/parse.py"]


@pytest.mark.parametrize("policy", ["mem1", "pencil"])
def test_a_long_trace_stays_whole(policy: str) -> None:
    """No broken pair, and every value that an agent uses again restores."""
    tally = replay(tool_trace(16), policy, "gpt-4o", Sizes(counter_for("gpt-4o")), 0.6)
    assert (tally.refused, tally.broken) == (0, 0)
    assert tally.requests >= 16
    assert tally.tokens < tally.tokens_full
    assert tally.present <= tally.recalled <= tally.restored == tally.values
