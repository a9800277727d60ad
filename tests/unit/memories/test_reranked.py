from __future__ import annotations

from collections.abc import Sequence
from math import nan

import pytest

from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.memories.asked import Found, Hit
from ctxmem.memories.search import reranked
from ctxmem.memory import Memory

FOUND = Found(
    tuple(
        Hit(Memory(f"mem_{name}", "ann", "", "", name), score, {})
        for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.1))
    ),
    "hybrid",
)


class Reader:
    name = "reader"

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        if not self._scores:
            raise Unavailable("away")
        return self._scores


def order(found: Found) -> str:
    return "".join(hit.memory.text for hit in found.hits)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1.0, 1.0, 1.0), "abc"),
        ((0.0, 9.0, 0.0), "bac"),
        ((0.0, 0.0, 9.0), "abc"),  # far behind before: it has 0.3 of the say
        ((nan, 1.0, 0.0), "bac"),
        ((nan, nan, nan), "abc"),
    ],
)
def test_a_reranker_and_the_search_before_it_decide_together(scores: tuple[float, ...], expected: str) -> None:
    found = reranked(FOUND, "q", 3, Reader(*scores))
    assert (order(found), found.by) == (expected, "hybrid+rerank")
    assert all("rerank" in hit.why for hit in found.hits)


def test_as_many_as_are_wanted() -> None:
    assert order(reranked(FOUND, "q", 1, Reader(0.0, 9.0, 0.0))) == "b"


def test_one_that_is_away_leaves_the_order() -> None:
    found = reranked(FOUND, "q", 2, Reader())
    assert (order(found), found.by) == ("ab", "hybrid")


def test_none_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="reranker"):
        reranked(FOUND, "q", 2, None)


def test_nothing_found() -> None:
    assert reranked(Found((), "lexical"), "q", 5, Reader()).hits == ()
