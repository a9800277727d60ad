"""Codes and what is known of their scores, on vectors that bytes fit badly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered.codes import Codes, Floats
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import CODES
from tests.unit.retrieval.fakes import alike

COUNT, K = 1200, 10


def unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Floats:
    made: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def drawn(kind: str, count: int, dimensions: int) -> Floats:
    """Vectors of a kind."""
    rng = np.random.default_rng(dimensions)
    rows = rng.normal(size=(count, dimensions))
    made = {
        "plain": lambda: unit(rows),
        "shifted": lambda: unit(rows + 8),
        "heavy": lambda: unit(rng.standard_t(1.5, size=rows.shape)),
        "constant": lambda: np.where(np.arange(dimensions) % 2, rows, 0.25),
        "long": lambda: rows * 10 ** rng.uniform(-3, 3, size=(count, 1)),
        "equal": lambda: unit(np.repeat(rows[:30], count // 30, axis=0)),
    }[kind]()
    return made.astype(np.float32)


def on_disk(folder: Path, vectors: Floats) -> TieredIndex:
    index = TieredIndex(folder, "e", vectors.shape[1], probed=10_000)
    index.add([f"v{number}" for number in range(len(vectors))], vectors)
    index.compact(lists=12)
    return index


@pytest.mark.parametrize("dimensions", [1, 7, 16, 40])
@pytest.mark.parametrize("kind", ["plain", "shifted", "heavy", "constant", "long", "equal"])
def test_the_best_are_found_whatever_the_codes_say(tmp_path: Path, kind: str, dimensions: int) -> None:
    """As by a product with all vectors, to what sums in float32 can tell."""
    vectors = drawn(kind, COUNT, dimensions)
    index, flat = on_disk(tmp_path, vectors), FlatIndex("e", dimensions)
    flat.add([f"v{number}" for number in range(COUNT)], vectors)
    for query in (*drawn(kind, 15, dimensions), *vectors[:5], np.zeros(dimensions, dtype=np.float32)):
        hits, expected = index.find(query, K), flat.search(query[None], K)[0]
        scale = max(1.0, *(abs(match.score) for match in expected))
        found = [match.score / scale for match in hits.matches]
        assert hits.exact
        assert found == pytest.approx([match.score / scale for match in expected], abs=2e-6)
        if kind == "plain" and query.any() and dimensions > 1:
            assert alike(hits.matches, expected)


@pytest.mark.parametrize("dimensions", [7, 16, 384])
@pytest.mark.parametrize("kind", ["plain", "shifted", "heavy"])
def test_a_rough_score_is_off_by_no_more_than_is_said(tmp_path: Path, kind: str, dimensions: int) -> None:
    """And the code's own score is that of what it stands for; also after some were erased."""
    vectors = drawn(kind, COUNT, dimensions)
    index = on_disk(tmp_path, vectors)
    index.erase(["v3", "v4"])
    assert index.segment is not None
    codes = Codes(index.segment.folder / CODES, index.segment.gone)
    everywhere = np.arange(codes.index.nlist)
    for query in drawn(kind, 20, dimensions):
        ready = codes.rounded(query)
        rough, rows = codes.search(ready, 300, everywhere, None)
        scores = codes.scores(ready, rows)
        kept = [at for at, row in enumerate(rows.tolist()) if row not in index.segment.gone]
        exact = np.array([codes.decoded(int(rows[at])) @ query for at in kept])
        assert scores[kept] == pytest.approx(exact, abs=1e-5)
        assert np.abs(rough - scores)[kept].max() <= ready.off + 1e-5
        assert (np.diff(rough) <= 0).all()
