"""What a result repeats is shown once, and what is left out stands where the pointer says."""

from __future__ import annotations

import random
import re

import pytest

from ctxmem.compressors.mem1.repeats import LEAD, LEAST, Repeats

_POINTER = re.compile(r"^(.*?) ?\[… as in (\w+)\](.*)$", re.S)


def document(name: str, words: int) -> str:
    """A text in which no word comes twice."""
    return " ".join(f"{name}{n}" for n in range(words))


def left_out(text: str, shown: str) -> tuple[list[str], str] | None:
    """The words of the first run that is not shown, its lead among them, and the handle given; None without one."""
    match = _POINTER.match(shown)
    if match is None:
        return None
    before, after, all_words = match[1].split(), match[3].split(), text.split()
    end = all_words.index(after[0]) if after else len(all_words)
    return all_words[len(before) - LEAD : end], match[2]


def test_a_document_that_came_before_is_pointed_to() -> None:
    """Under another number and with other line breaks; its start stays."""
    seen, text = Repeats(), document("a", 60)
    assert seen.pointed(f"Doc 1 {text}\nDoc 2 {document('b', 40)}", "e2") == f"Doc 1 {text}\nDoc 2 {document('b', 40)}"
    again = seen.pointed(f"Doc 1 {document('c', 30)}\nDoc 2 {text.replace(' a30', chr(10) + 'a30')}\nDoc 3 new", "e4")
    assert again == f"Doc 1 {document('c', 30)}\nDoc 2 a0 a1 a2 a3 a4 [… as in e2]\nDoc 3 new"


@pytest.mark.parametrize("words", [LEAST - 1, LEAST])
def test_short_runs_stay(words: int) -> None:
    """A pointer would save nothing."""
    seen = Repeats()
    seen.pointed(document("a", words), "e1")
    assert ("as in e1" in seen.pointed(document("a", words), "e2")) == (words == LEAST)


def test_nothing_is_left_out_that_does_not_stand_where_the_pointer_says() -> None:
    """Random results of whole documents, their starts and their ends."""
    for seed in range(200):
        pick, seen, earlier = random.Random(seed), Repeats(), {}
        for turn in range(6):
            parts = [document(f"{name}_", 50).split() for name in pick.sample("abcdef", 3)]
            cuts = [(pick.randrange(25), pick.randrange(25, 51)) for _ in parts]
            text = "\n".join(" ".join(part[start:end]) for part, (start, end) in zip(parts, cuts, strict=True))
            gone = left_out(text, shown := seen.pointed(text, f"e{turn}"))
            earlier[f"e{turn}"] = f" {' '.join(text.split())} "
            assert (gone is None) == (shown == text)
            assert gone is None or f" {' '.join(gone[0])} " in earlier[gone[1]]


@pytest.mark.parametrize("text", ["", " \n", "one", "[… as in e9]"])
def test_what_is_short_comes_back_as_it_was(text: str) -> None:
    """White space included."""
    seen = Repeats()
    assert seen.pointed(text, "e1") == seen.pointed(text, "e2") == text
