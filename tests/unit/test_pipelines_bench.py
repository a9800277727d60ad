"""The yardstick of `bench.pipelines --ahead`: what counts as a hit, on an index small enough to check by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import ahead
from ctxmem.retrieval.pipelines import EVERY
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.types import Message
from tests.unit.retrieval.fakes import Hashing

TEXTS = [f"{one} {other} {number}" for number, one in enumerate("abcdefghijklmnop") for other in "qrstuvwx"]


class Says:
    """A model that always writes the same, a word at a time, and waits for what its listener began."""

    def __init__(self, text: str, wait: Callable[[int], None]) -> None:
        self._text, self._wait = text, wait

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        for number, word in enumerate(self._text.split(), start=1):
            yield f"{word} "
            self._wait(number // EVERY)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Callable[[str], ahead.Shelf]]:
    embedder = Hashing()
    index = TieredIndex(tmp_path, embedder.name, embedder.dimensions, probed=2)
    index.add([str(number) for number in range(len(TEXTS))], embedder.embed(TEXTS))
    index.compact(lists=16)

    def made(says: str) -> ahead.Shelf:
        def wait(feeds: int) -> None:
            while len(found.turn.drafts) < feeds:
                time.sleep(0.001)
            if found._ticket is not None:
                found._ticket.wait(10)

        writer: Any = Says(says, wait)
        found = ahead.Shelf(index, embedder, writer)
        return found

    yield made
    index.close()


def test_without_lookahead_nothing_is_there(shelf: Callable[[str], ahead.Shelf]) -> None:
    turn = shelf("p x 15").ask("a q 0", "hyde", "none")
    assert (turn.hits, turn.fetched) == (0.0, 0)
    assert turn.texts == ("a q 0", "p x 15")


def test_clusters_of_the_question_are_hits_where_the_draft_needs_them(shelf: Callable[[str], ahead.Shelf]) -> None:
    """A draft with the question's vector needs the question's clusters: all are there, of twice as many fetched."""
    turn = shelf("0 q a").ask("a q 0", "hyde", "question")
    assert (turn.hits, turn.fetched) == (1.0, 4)


def test_feeding_brings_in_what_the_draft_needs(shelf: Callable[[str], ahead.Shelf]) -> None:
    """The last feed has the whole draft, so its clusters are there whatever the question was."""
    draft = " ".join(["p x 15"] * 8)  # 24 words
    turn = shelf(draft).ask("a q 0", "hyde", "fed")
    assert turn.hits == 1.0
    assert [len(text.split()) for text in turn.drafts] == list(range(EVERY, 25, EVERY))


def test_a_replayed_turn_takes_at_least_the_models_time(shelf: Callable[[str], ahead.Shelf]) -> None:
    stand = shelf("")
    rows = stand.vectors(["a q 0", "p x 15"])
    for reads in ("codes", "whole clusters"):
        assert ahead._turn(stand, rows, rows[1:], (0.02, "fed", reads)) >= 0.02


def test_copies_lie_in_the_neighbourhood() -> None:
    """A copy is another vector of length one, nearer to its own than to others."""
    rows = np.eye(8, dtype=np.float32)
    made = ahead.noisy(rows, seed=1)
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0)
    assert ((made @ rows.T).argmax(1) == np.arange(8)).all()


def test_the_index_holds_the_vectors_and_their_copies(tmp_path: Path) -> None:
    """Each vector is found by itself; its copies are others."""
    embedder = Hashing()
    rows = embedder.embed(TEXTS)
    index = ahead.built(tmp_path, rows, embedder, ahead.Size(copies=2, lists=8, probed=(8,)))
    assert len(index) == 3 * len(TEXTS)
    assert np.allclose(index.vectors(["0", "5"]), rows[[0, 5]])
    assert [path.name for path in tmp_path.glob("*.npy")] == []
    index.close()
