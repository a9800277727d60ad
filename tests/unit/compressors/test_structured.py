"""JSON pruned by its structure."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.compressors.prune import Prune
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.structured import is_json, parsed, prune_json
from tests.unit.compressors.counting import CharacterCounter

COUNT = CharacterCounter()
GATE = Prune(min_saved=1, min_share=0)
MARK = re.compile(r'(?:"\[\d+ of \d+ left out\]"| \[\d+ characters left out\] )')
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=8), inner, max_size=8),
    max_leaves=60,
)


def pruned(source: str, budget: int, question: str = ""):
    return prune_json(source, budget, COUNT, GATE, Question(question) if question else None)


@given(value=VALUES, ascii=st.booleans(), indent=st.sampled_from([None, 1]), share=st.floats(0.05, 1))
def test_parses_fits_and_is_made_of_the_source(value, ascii, indent, share):
    """Whatever the value, its writing and the budget."""
    source = json.dumps(value, ensure_ascii=ascii, indent=indent)
    budget = int(share * len(source))
    done = pruned(source, budget)
    json.loads(done.text)
    if done.refusal:
        assert done.text == source
        return
    assert len(done.text) == done.tokens_after <= budget
    left = source
    for start, end in reversed(done.dropped):
        left = left[:start] + "\0" + left[end:]
    pattern = MARK.pattern.join(re.escape(piece) for piece in left.split("\0"))
    assert re.fullmatch(f"(?s:{pattern})", done.text)


def test_every_key_stays_and_errors_go_last():
    """Of a long array the ends and what reports an error; of a long string its ends."""
    rows = [{"id": i, "state": "fine" if i != 57 else "ERROR disk full"} for i in range(100)]
    done = pruned(json.dumps({"ok": True, "rows": rows, "log": "words " * 200}), 420)
    value = json.loads(done.text)
    assert value.keys() == {"ok", "rows", "log"}
    assert {row["id"] for row in value["rows"] if isinstance(row, dict)} >= {0, 57, 99}
    assert "characters left out" in value["log"]


def test_what_shares_words_with_the_question_stays():
    """A live result is read for something."""
    source = json.dumps([{"city": f"Town{i}", "fee": i} for i in range(200)])
    assert '"Town123"' in pruned(source, 300, "What is the fee of Town123?").text
    assert '"Town123"' not in pruned(source, 300).text


def test_what_is_pinned_stays():
    """A restore mark, `<ctx:keep>` and special-token text are never cut."""
    pins = ("x" * 99 + "<ctx:keep>k</ctx:keep>", "[12 tokens left out, ctx:0123456789abcdef0123]" + "y" * 99)
    done = pruned(json.dumps([*("z" * 30 for _ in range(50)), pins[0], pins[1], "<|im_end|>", 1]), 600)
    assert not done.refusal
    assert all(pin in done.text for pin in (*pins, "<|im_end|>"))


@pytest.mark.parametrize(
    ("source", "refusal"),
    [
        ('{"a": 1, "b": 2, "c": 3}', "nothing_to_prune"),
        ("[" * 5000 + "]" * 5000, "nothing_to_prune"),
        (json.dumps({f"key{i}": "v" * 200 for i in range(50)}), "hard_spans_over_budget"),
    ],
)
def test_refusals_name_their_reason(source, refusal):
    """No key is ever dropped, so some JSON cannot be made small."""
    done = pruned(source, 20)
    assert (done.text, done.refusal) == (source, refusal)


def test_one_line_of_25_kilobytes():
    """What a tool often answers."""
    source = json.dumps([{"path": f"src/module_{i}.py", "size": i} for i in range(600)])
    done = pruned(source, len(source) // 4)
    assert len(source) > 20_000
    assert json.loads(done.text)
    assert done.tokens_after <= len(source) // 4


def test_only_json_counts_as_json():
    """Half of it, lines of it or something around it do not."""
    assert is_json(' [{"a": 1}]\n')
    assert not any(map(is_json, ('[{"a": 1}', '{"a": 1}\n{"a": 2}', 'Here: {"a": 1}', "{}", "")))
    assert parsed('{"a": [1, "]"]}').parts[0].parts[1].end == 13
