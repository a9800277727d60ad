from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.flat import FlatIndex


def filled(size: int, seed: int = 0) -> tuple[FlatIndex, np.ndarray]:
    rows = np.random.default_rng(seed).standard_normal((size, 16)).astype(np.float32)
    index = FlatIndex("test", 16)
    index.add([f"{place:05}" for place in range(size)], rows)
    return index, rows


@given(st.integers(1, 300), st.integers(0, 400), st.integers(0, 99))
def test_finds_what_faiss_finds(size: int, k: int, seed: int) -> None:
    index, rows = filled(size, seed)
    query = np.random.default_rng(seed + 1).standard_normal((1, 16)).astype(np.float32)
    flat = faiss.IndexFlatIP(16)
    flat.add(rows)
    found = index.search(query, k)[0]
    if k == 0:
        assert found == []
        return
    scores, places = flat.search(query, min(k, size))
    assert [int(match.id) for match in found] == places[0].tolist()
    assert np.allclose([match.score for match in found], scores[0], atol=1e-5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120))
def test_adding_and_removing_ends_where_a_fresh_index_begins(steps: list[tuple[bool, int]]) -> None:
    rows = np.random.default_rng(3).standard_normal((31, 16)).astype(np.float32)
    index, kept = FlatIndex("test", 16), set()
    for adds, place in steps:
        if adds:
            index.add([str(place)], rows[place][None])
            kept.add(place)
        else:
            assert index.remove([str(place)]) == (place in kept)
            kept.discard(place)
    fresh = FlatIndex("test", 16)
    fresh.add([str(place) for place in sorted(kept)], rows[sorted(kept)])
    assert index.search(rows[:2], 40) == fresh.search(rows[:2], 40)
    assert len(index) == len(kept)


def test_only_what_is_asked_for_is_found() -> None:
    index, rows = filled(50)
    found = index.search(rows[:1], 10, among=["00003", "00007", "gone", "00003"])[0]
    assert {match.id for match in found} == {"00003", "00007"}


def test_equal_scores_come_by_id() -> None:
    index = FlatIndex("test", 16)
    index.add(["b", "c", "a"], np.ones((3, 16), dtype=np.float32))
    assert [match.id for match in index.search(np.ones((1, 16), dtype=np.float32), 2)[0]] == ["a", "b"]


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (["a"], np.ones((1, 15))),
        (["a"], np.full((1, 16), np.nan)),
        (["a"], np.full((1, 16), np.inf)),
        (["a", "a"], np.ones((2, 16))),
        (["a"], np.ones((2, 16))),
        (["a"], np.ones(16)),
    ],
)
def test_bad_vectors_are_refused_and_change_nothing(ids: list[str], rows: np.ndarray) -> None:
    index, _ = filled(5)
    with pytest.raises(InvalidInput):
        index.add(ids, rows)
    assert len(index) == 5


def test_bad_searches_are_refused() -> None:
    index, rows = filled(5)
    with pytest.raises(InvalidInput, match="negative"):
        index.search(rows[:1], -1)
    with pytest.raises(InvalidInput, match="finite"):
        index.search(np.full((1, 16), np.nan, dtype=np.float32), 1)
    assert FlatIndex("test", 16).search(rows[:1], 3) == [[]]
