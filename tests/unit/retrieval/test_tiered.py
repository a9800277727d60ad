"""The index on disk beside faiss and beside plain memory: the same results, whatever happens to it."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ctxmem import ContextManager
from ctxmem.errors import InvalidInput, StoreError
from ctxmem.ports import Match
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.tiered.build import build
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import CODES, IDS, MANIFEST, ROWS, opened
from tests.unit.retrieval.fakes import Hashing, alike

D = 16
Floats = NDArray[np.float32]


def clustered(count: int, seed: int = 0) -> Floats:
    """Unit vectors around thirty centres."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(30, D))[rng.integers(0, 30, count)] + 0.4 * rng.normal(size=(count, D))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"v{number}" for number in range(count)]


def filled(folder: Path, count: int = 1500, **options: int) -> TieredIndex:
    """An index whose vectors are on disk, in forty clusters."""
    index = TieredIndex(folder, "e", D, **options)
    index.add(names(count), clustered(count))
    index.compact(lists=40)
    return index


@pytest.mark.parametrize("probed", [1, 4, 40])
def test_it_finds_what_faiss_finds(tmp_path: Path, probed: int) -> None:
    """In the same clusters, by an index over the vectors themselves; few of ours are read."""
    index, vectors = filled(tmp_path, probed=probed), clustered(1500)
    segment = opened(next(path for path in tmp_path.iterdir() if path.is_dir()), "e", D)
    plain = faiss.IndexIVFFlat(faiss.downcast_index(segment.codes.index.quantizer), D, 40, faiss.METRIC_INNER_PRODUCT)
    plain.own_fields, plain.nprobe = False, probed
    plain.add(vectors)
    read = []
    for query in clustered(200, seed=1):
        hits = index.find(query, 10)
        scores, rows = plain.search(query[None], 10)
        expected = [Match(f"v{row}", float(score)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
        assert hits.exact
        assert alike(hits.matches, expected)
        read.append(hits.rows_read)
    assert np.median(read) < 40


class Twins:
    """A tiered index and a flat one, and random operations on both."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self.folder = random.Random(seed), folder
        self.ours, self.flat = TieredIndex(folder, "e", D, probed=10_000), FlatIndex("e", D)
        self.pool = clustered(400, seed)

    def step(self) -> None:
        some = self.rng.sample(range(60), self.rng.randrange(1, 9))
        ids, rows = [f"v{one}" for one in some], self.pool[[self.rng.randrange(400) for _ in some]]
        match self.rng.randrange(12):
            case 0 | 1 | 2:
                self.ours.add(ids, rows)
                self.flat.add(ids, rows)
            case 3:
                assert self.ours.remove(ids) == self.flat.remove(ids)
            case 4:
                self.ours.compact(lists=self.rng.randrange(1, 9))
            case 5 if len(self.flat):
                self.ours.compact()
                self.ours = TieredIndex(self.folder, "e", D, probed=10_000)
            case 6 if len(self.flat):
                self.ours = TieredIndex(self.folder, "e", D, probed=10_000, trusted=False)
                held = self.flat.ids
                self.ours.add(held, self.flat.vectors(held))
            case _:
                self.search(ids)
        assert len(self.ours) == len(self.flat)

    def search(self, ids: list[str]) -> None:
        query, k = self.pool[[self.rng.randrange(400)]], self.rng.randrange(8)
        among = self.rng.choice([None, ids, [*ids, "nobody"], []])
        assert alike(self.ours.search(query, k, among=among)[0], self.flat.search(query, k, among=among)[0])


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_what_memory_finds(tmp_path: Path, seed: int) -> None:
    """Over added, replaced, removed, compacted, reopened, and told anew after a restart: 400 operations."""
    twins = Twins(tmp_path, seed)
    for _ in range(400):
        twins.step()


class TestDamage:
    def segment(self, folder: Path) -> Path:
        return next(path for path in folder.iterdir() if path.is_dir())

    def test_a_damaged_vector_stands_in_by_its_code(self, tmp_path: Path) -> None:
        """Nearly right, and said not to be proved; compacting refuses to spread it until it is added again."""
        index = filled(tmp_path, probed=10_000)
        query = clustered(1500)[7]
        rows = self.segment(tmp_path) / ROWS
        whole = bytearray(rows.read_bytes())
        place = 4 * D * int(opened(self.segment(tmp_path), "e", D).ids.rows(["v7"])[0])
        whole[place : place + 4] = b"\xff\xff\xff\x7f"
        rows.write_bytes(whole)
        hits = index.find(query, 3)
        assert (hits.exact, hits.degraded, hits.matches[0].id) == (False, "rows", "v7")
        assert hits.matches[0].score == pytest.approx(1, abs=0.05)
        with pytest.raises(StoreError, match="damaged"):
            index.compact()
        index.add(["v7"], clustered(1500)[7:8])
        index.compact(lists=10)
        assert index.find(query, 3).exact

    @pytest.mark.parametrize("name", [ROWS, CODES, IDS, MANIFEST])
    @pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
    def test_what_is_not_whole_is_left_out(self, tmp_path: Path, name: str, damage: str) -> None:
        """The index starts empty, takes everything in anew, and is whole after the next compaction."""
        filled(tmp_path)
        path = self.segment(tmp_path) / name
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: -5 if damage == "cut" else 0])
        index = TieredIndex(tmp_path, "e", D, probed=10_000)
        assert len(index) == 0
        index.add(names(1500), clustered(1500))
        index.compact(lists=10)
        assert TieredIndex(tmp_path, "e", D).find(clustered(1500)[3], 1).matches[0].id == "v3"

    def test_another_embedders_segment_is_left_out(self, tmp_path: Path) -> None:
        filled(tmp_path)
        assert len(TieredIndex(tmp_path, "other", D)) == 0

    def test_a_full_disk_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        """And nothing half-written behind."""
        index = filled(tmp_path, probed=10_000)
        before = sorted(path.name for path in tmp_path.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(StoreError, match="cannot be written"):
                index.compact(lists=10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        assert index.find(clustered(1500)[3], 1).matches[0].id == "v3"


class TestInput:
    @pytest.mark.parametrize(
        "call",
        [
            lambda index: index.add(["a"], np.zeros((1, D + 1), dtype=np.float32)),
            lambda index: index.add(["a"], np.full((1, D), np.nan, dtype=np.float32)),
            lambda index: index.add(["a", "a"], np.zeros((2, D), dtype=np.float32)),
            lambda index: index.add(["a"], np.zeros((2, D), dtype=np.float32)),
            lambda index: index.add(["a\0b"], np.zeros((1, D), dtype=np.float32)),
            lambda index: index.search(np.zeros((1, D), dtype=np.float32), -1),
            lambda index: index.find(np.full(D, np.inf, dtype=np.float32), 1),
            lambda index: index.find(np.zeros((2, D), dtype=np.float32), 1),
            lambda index: index.find(np.zeros(D, dtype=np.float32), 1.5),
            lambda index: index.find(np.zeros(D, dtype=np.float32), 1, deadline=np.nan),
            lambda index: index.find(["a"] * D, 1),
            lambda index: index.add([1], np.zeros((1, D), dtype=np.float32)),
            lambda index: index.lookahead(np.zeros(D + 1, dtype=np.float32), expect=1.0),
            lambda index: index.lookahead(np.full(D, np.nan, dtype=np.float32), expect=1.0),
            lambda index: index.lookahead(np.zeros(D, dtype=np.float32), expect=1.0, lists=-1),
            lambda index: index.lookahead(clustered(1)[0], expect=np.inf).feed(np.zeros(D - 1, dtype=np.float32)),
            lambda index: index.lookahead(clustered(1)[0], expect=np.inf).feed(np.full(D, np.nan, dtype=np.float32)),
            lambda index: index.compact(lists=0),
        ],
    )
    def test_wrong_calls_change_nothing(self, tmp_path: Path, call: Callable[[TieredIndex], object]) -> None:
        index = filled(tmp_path, count=60)
        with pytest.raises(InvalidInput):
            call(index)
        assert len(index) == 60

    def test_ids_of_any_script_and_length(self, tmp_path: Path) -> None:
        """Also one that another begins with, and half of a surrogate pair."""
        ids = ["", "a", "ab", "é" * 300, "🌊", "\ud83c", "a "]
        index, vectors = TieredIndex(tmp_path, "e", D, probed=99), clustered(7)
        index.add(ids, vectors)
        index.compact(lists=2)
        for id, vector in zip(ids, vectors, strict=True):
            assert index.find(vector, 1).matches[0].id == id
            assert [m.id for m in index.search(vector[None], 9, among=[id, "b"])[0]] == [id]
        assert index.remove(["é" * 300, "b"]) == 1

    def test_nothing_and_too_much(self, tmp_path: Path) -> None:
        """An empty index, more finds than there are, no clusters to search, a segment of nothing."""
        index = TieredIndex(tmp_path / "a", "e", D)
        assert index.search(clustered(1), 5) == [[]]
        index.compact()
        index.add(["a"], clustered(1))
        index.compact()
        assert [m.id for m in index.find(clustered(1)[0], 50).matches] == ["a"]
        for dimensions, probed in ((D, 0), (0, 1)):
            with pytest.raises(InvalidInput):
                TieredIndex(tmp_path / "b", "e", dimensions, probed=probed)

    @pytest.mark.parametrize(
        ("ids", "vectors", "lists"),
        [
            ([], clustered(0), None),
            (["a"], clustered(2), None),
            (["a", "a"], clustered(2), None),
            (["a"], clustered(1)[0], None),
            (["a", "b"], np.full((2, D), np.nan, dtype=np.float32), None),
            (["a", "b"], clustered(2), 0),
        ],
    )
    def test_a_segment_that_cannot_be_is_not_there(
        self, tmp_path: Path, ids: list[str], vectors: Floats, lists: int | None
    ) -> None:
        with pytest.raises(InvalidInput):
            build(tmp_path / "c", ids, vectors, fingerprint="e", lists=lists)
        assert not list(tmp_path.iterdir())

    def test_ids_that_cannot_be_are_not_there(self, tmp_path: Path) -> None:
        index = filled(tmp_path, count=60)
        index.erase(["v1"])
        for id in ("a\0b", "\0", "\0\1"):
            assert index.remove([id]) == 0
            assert index.find(clustered(1)[0], 1, among=[id]).matches == []

    def test_past_a_deadline_comes_what_there_is(self, tmp_path: Path) -> None:
        hits = filled(tmp_path).find(clustered(1)[0], 10, deadline=0.0)
        assert (hits.exact, hits.degraded) == (False, "deadline")


def test_a_library_searches_in_it(tmp_path: Path) -> None:
    """As in memory, also after a restart in which documents were deleted and changed."""
    manager = ContextManager(f"sqlite:///{tmp_path}/log.db")
    embedder = Hashing()
    texts = {f"d{number}": f"tram number {number} stops at gate {number % 7}" for number in range(60)}

    def library() -> Library:
        return Library(
            manager.engine.store.documents,
            embedder,
            indexes=lambda tenant, namespace, one: TieredIndex(
                tmp_path / tenant / namespace, one.name, one.dimensions, probed=10_000, trusted=False
            ),
        )

    first, flat = library(), Library(manager.engine.store.documents, embedder)
    first.ingest("t", "trams", [Source(text, id=id) for id, text in texts.items()])
    first.search("t", Query("tram", "trams"))
    held = first._held["t", "trams"].hybrid._index
    assert isinstance(held, TieredIndex)
    held.compact(lists=5)
    flat.delete("t", "trams", [f"d{number}" for number in range(10)])
    flat.ingest("t", "trams", [Source("the ferry to the island", id="d11")])
    for query in ("tram number 12", "gate 3", "ferry island"):
        asked = Query(query, "trams", k=8, mode="dense")
        ours, expected = library().search("t", asked), flat.search("t", asked)
        assert [one.id for one in ours.found] == [one.id for one in expected.found]
    manager.close()
