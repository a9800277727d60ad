"""Text that a pattern could lose its way in: long words, runs of marks, deep nesting. All is read in linear time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

import pytest

from ctxmem.compressors import content, structured
from ctxmem.compressors.mem1 import ops
from ctxmem.compressors.mem1.apply import Turn, patch
from ctxmem.compressors.mem1.consolidate import read
from ctxmem.compressors.mem1.extract import extract
from ctxmem.compressors.mem1.ops import MOST_OPS, Op
from ctxmem.compressors.mem1.state import State
from ctxmem.compressors.pencil.check import loose
from ctxmem.testing import WordCounter

COUNT = WordCounter()
SIZE = 100_000
TEXTS = {
    "a letter": "x",
    "base64": "".join(random.Random(1).choices("ABCDEFGHIJabcdefghij0123456789+/", k=SIZE)),
    **{
        one: one
        for one in (".", "a-", "_", " ", "\n", "7", "/a", "a@", '"', "[", "{", "a::", "- i1 (", "+ ", "+\n", "`")
    },
    **{one: one for one in ("<fact>", "<fact ", "<think>", "<think>a</", '{"a":', "'\\", "```", "\t|", "Aa ")},
}
READERS: dict[str, Callable[[str], object]] = {
    "the extractor": lambda text: extract(State(bound=120), (Turn("e1", "obs", text),), COUNT),
    "an item's sources": lambda text: patch(
        State(bound=120), (Op("add", "facts", text=text),), (Turn("e1", "obs", text),), COUNT, by="1"
    ),
    "the ladder": ops.parse,
    "a rendering": read,
    "the check of an answer": lambda text: loose(text, [text]),
    "the kind of a text": content.kind,
    "whether it is JSON": structured.is_json,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", READERS)
def test_it_takes_no_second_for_100_000_characters(reader: str, text: str) -> None:
    """Of processor time, where a pattern that goes back and forth takes minutes."""
    said = (TEXTS[text] * (SIZE // len(TEXTS[text])))[:SIZE]
    began = time.process_time()
    READERS[reader](said)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"ops": [{"op": "add", "text": f"fact {n}"} for n in range(10_000)]}),
        "\n".join(f"+ facts: fact {n}" for n in range(5_000)),
        "".join(f"<fact>fact {n}" for n in range(5_000)),
    ],
)
def test_no_answer_has_more_operations_than_count(answer: str) -> None:
    """The first ones do."""
    found = ops.parse(answer).ops
    assert len(found) <= MOST_OPS
    assert found[0].text == "fact 0"


def test_a_text_cannot_say_how_many_items_there_were() -> None:
    """Only the last line of a rendering can."""
    assert read("i1 facts: we wrote (+77 older items: recall) on the wall").evicted == 0
    assert read("i1 facts: x\n(+7 older items: recall)").evicted == 7
    assert read(f"i1 facts: x\n(+{'9' * 5_000} older items: recall)").evicted == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail Ann.Lee+x@mail.example.org now", "Ann.Lee+x@mail.example.org"),
        ("see src/app/main.py:12", "src/app/main.py"),
        ("in /var/log/syslog today", "/var/log/syslog"),
        ("the id is PL-7", "PL-7"),
        ("set max_size higher", "max_size"),
        ("on 2026-11-29 at 7:30", "2026-11-29"),
        ("a/b", "a/b"),
    ],
)
def test_names_and_paths_are_found_as_before(text: str, found: str) -> None:
    """The extractor lists them as artifacts."""
    made = extract(State(bound=200), (Turn("e1", "obs", text),), COUNT)
    assert any(op.sec == "artifacts" and found in op.text.split(", ") for op in made) or any(
        found in op.text for op in made
    )
