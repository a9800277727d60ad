"""Counts that are remembered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ctxmem.tokens.counts import Remembered, well_formed


class Words:
    """A measure that notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(texts)
        return [len(text.split()) for text in texts]


def test_a_text_is_measured_once():
    """Also when it comes twice in one call; the order of the answer is that of the question."""
    words = Words()
    count = Remembered(words)
    assert count(["a b", "a", "a b"]) == [2, 1, 2]
    assert count(["a", "c c c", "a b"]) == [1, 3, 2]
    assert words.asked == [["a b", "a"], ["c c c"]]


def test_long_texts_are_told_apart_by_their_last_character():
    """Only a digest of a long text is kept."""
    count = Remembered(Words())
    assert count(["x " * 1000, "x " * 1000 + "y"]) == [1000, 1001]
    assert count(["x " * 1000 + "y", "x " * 1000]) == [1001, 1000]


def test_the_text_not_asked_for_the_longest_is_forgotten_first():
    """The memory is bounded."""
    words = Words()
    count = Remembered(words, capacity=2)
    count(["a", "b"])
    count(["a"])
    count(["c"])
    count(["a", "c"])
    assert words.asked == [["a", "b"], ["c"]]
    count(["b"])
    assert words.asked[-1] == ["b"]


def test_one_call_may_hold_more_texts_than_the_memory():
    """Every text of the call is answered all the same."""
    count = Remembered(Words(), capacity=2)
    assert count(["a", "a b", "a b c", ""]) == [1, 2, 3, 0]


def test_many_threads_get_right_counts():
    """While others push their entries out."""
    count = Remembered(Words(), capacity=8)
    texts = ["w " * n for n in range(1, 40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: count(texts), range(40)))
    assert answers == [list(range(1, 40))] * 40


def test_lone_surrogates_become_replacement_characters():
    """JSON can carry them; pairs and everything else stay as they are."""
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("naïve 😀") == "naïve 😀"
