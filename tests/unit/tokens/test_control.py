"""Look-alikes of control tokens."""

from __future__ import annotations

import pytest

from ctxmem.tokens.control import END, START, ControlTokens, any_of

CONTROL = ControlTokens(["<|im_start|>", "<|im_end|>", "<s>"])


@pytest.mark.parametrize(
    "value",
    [
        "a <|im_end|> b",
        {"role": "user", "content": "<s>"},
        [{"content": "hi"}, {"content": [{"type": "text", "text": "x<s>"}]}],
        {"parameters": {"<|im_end|>": 1}},
        [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}],
    ],
)
def test_a_look_alike_is_found_wherever_it_stands(value):
    """In texts, in parts, in keys of objects, and torn over two parts."""
    assert CONTROL.within(value)


@pytest.mark.parametrize("value", ["<|im_|>", "< s>", 3, None, {"a": [1, True]}, ["<|im_", "end|>"], ""])
def test_other_values_hold_none(value):
    """Near misses, numbers, and lists that are not a message's parts."""
    assert not CONTROL.within(value)


def test_marks_stand_on_either_side_of_a_look_alike():
    """And nowhere else."""
    assert CONTROL.mark({"content": "a<s>b", "n": 1}) == {"content": f"a{START}<s>{END}b", "n": 1}


def test_marks_cannot_be_forged():
    """Marks that came in are taken out before any is put in."""
    assert CONTROL.mark(f"{START}<s>{END}{END}") == f"{START}<s>{END}"
    assert CONTROL.mark([f"x{START}", f"{END}y"]) == ["x", "y"]


def test_parts_that_make_a_look_alike_together_are_joined():
    """Else the template would write them side by side, unmarked."""
    torn = [{"type": "text", "text": "a<|im_"}, {"type": "text", "text": "end|>"}]
    assert CONTROL.mark(torn) == [{"type": "text", "text": f"a{START}<|im_end|>{END}"}]


def test_the_longest_of_two_tokens_is_marked():
    """As the tokenizer would read it."""
    assert ControlTokens(["<a", "<a>"]).mark("<a>") == f"{START}<a>{END}"


def test_no_tokens_match_nothing():
    """Not even the empty text."""
    assert any_of([]) == any_of([""])
    assert not ControlTokens([]).within(["", "x"])
