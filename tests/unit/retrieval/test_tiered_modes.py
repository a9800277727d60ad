"""The ways to search the index on disk: each says truly how much of its result is known."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ctxmem.errors import InvalidInput
from ctxmem.ports import Match
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered import certify
from ctxmem.retrieval.tiered.hits import MODES, Hits, Mode
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import ROWS, Segment
from tests.unit.retrieval.fakes import alike
from tests.unit.retrieval.test_tiered import D, Floats, clustered, filled, names

NEVER = 1e9


@pytest.fixture
def index(tmp_path: Path) -> TieredIndex:
    """Forty clusters of which a search looks into four, with changes in memory."""
    made = filled(tmp_path, probed=4)
    made.remove(names(100))
    made.add(["new", "v200"], clustered(2, seed=9))
    return made


@pytest.fixture
def flat() -> FlatIndex:
    """The same in memory."""
    made = FlatIndex("e", D)
    made.add(names(1500), clustered(1500))
    made.remove(names(100))
    made.add(["new", "v200"], clustered(2, seed=9))
    return made


def segment_of(index: TieredIndex) -> Segment:
    assert index.segment is not None
    return index.segment


def in_clusters(index: TieredIndex, flat: FlatIndex, query: Floats, k: int, lists: set[int]) -> list[Match]:
    """By brute force, the best in some clusters and in memory."""
    segment = segment_of(index)
    rows = [row for number in lists for row in range(int(segment.starts[number]), int(segment.starts[number + 1]))]
    ids = {segment.ids[row] for row in rows} - {"v200"} | {"new", "v200"}
    return flat.search(query[None], k, among=ids)[0]


def nearest(index: TieredIndex, query: Floats) -> set[int]:
    return set(segment_of(index).nearest(query, index.probed).tolist())


def test_certified_is_the_best_of_the_nearest(index: TieredIndex, flat: FlatIndex) -> None:
    for query in clustered(60, seed=2):
        hits = index.find(query, 10)
        assert alike(hits.matches, in_clusters(index, flat, query, 10, nearest(index, query)))
        assert (hits.exact, hits.whole, hits.coverage, hits.degraded, hits.lists) == (True, False, 1.0, "", 4)


def test_scan_is_the_best_of_all(index: TieredIndex, flat: FlatIndex) -> None:
    for query in clustered(60, seed=2):
        hits = index.find(query, 10, mode="scan")
        assert alike(hits.matches, flat.search(query[None], 10)[0])
        assert (hits.exact, hits.whole, hits.coverage, hits.degraded, hits.lists) == (True, True, 1.0, "", 40)


def test_superset_adds_what_its_ticket_brought_in(index: TieredIndex, flat: FlatIndex) -> None:
    """The best of those clusters and the nearest ones; without a ticket, or after it was cancelled early, of these."""
    more = []
    for query, other in zip(clustered(60, seed=2), clustered(60, seed=3), strict=True):
        with index.lookahead(other, expect=NEVER, lists=6) as ticket:
            assert ticket.wait(5)
            brought, near = set(ticket.fetched), nearest(index, query)
            hits = index.find(query, 10, mode="superset", ticket=ticket)
        assert alike(hits.matches, in_clusters(index, flat, query, 10, brought | near))
        assert (hits.exact, hits.lists, hits.fetched) == (True, len(brought | near), len(brought))
        certified = index.find(query, 10)
        assert index.find(query, 10, mode="superset").matches == certified.matches
        pairs = zip(hits.matches, certified.matches, strict=True)
        assert all(one.score >= other.score - 1e-6 for one, other in pairs)
        more.append(alike(hits.matches, certified.matches))
    assert not all(more)


def test_a_ticket_of_an_older_segment_adds_nothing(index: TieredIndex) -> None:
    """Its clusters have other numbers now."""
    query = clustered(1, seed=2)[0]
    ticket = index.lookahead(clustered(1, seed=3)[0], expect=NEVER, lists=30)
    assert ticket.wait(5)
    index.compact(lists=40)
    hits = index.find(query, 5, mode="superset", ticket=ticket)
    assert (hits.lists, hits.fetched) == (4, 0)


def test_among_searches_the_clusters_that_hold_them(index: TieredIndex, flat: FlatIndex) -> None:
    """And no others; the result is the best of all of them, in memory or on disk, there or not."""
    segment = segment_of(index)
    for start, query in zip(range(90, 700, 50), clustered(20, seed=2), strict=False):
        some = ["new", "nobody", *names(start + 15)[start:]]
        rows = [int(row) for id, row in zip(some, segment.ids.rows(some), strict=True) if row >= 0 and id != "v200"]
        there = [row for row in rows if int(segment.ids[row][1:]) >= 100]
        hits = index.find(query, 8, among=some)
        assert alike(hits.matches, flat.search(query[None], 8, among=some)[0])
        assert (hits.lists, hits.whole) == (len(segment.clusters(np.array(there))), True)
        assert hits.lists <= 15
    assert index.find(query, 8, among=["nobody"]) == Hits([])


class TestTime:
    """A clock that runs out after so many looks at it."""

    @pytest.fixture
    def looks(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        left = [0]

        def now() -> float:
            left[0] -= 1
            return 0.0 if left[0] >= 0 else NEVER

        monkeypatch.setattr(certify.time, "monotonic", now)
        monkeypatch.setattr(certify, "_SCANNED", 100)
        return left

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("queries", [1, 5])
    def test_coverage_is_true(
        self, index: TieredIndex, flat: FlatIndex, looks: list[int], mode: Mode, queries: int
    ) -> None:
        """Whenever it ends, no more of the best are missing than rows are said to be open; in the end none is."""
        seen, sought = set(), clustered(5, seed=2)[:queries]
        index.find_many(sought, 10, mode=mode)
        for allowed in itertools.count(1):
            looks[0] = allowed
            found = index.find_many(sought, 10, mode=mode, deadline=1.0).hits
            for query, hits in zip(sought, found, strict=True):
                lists = set(range(40)) if mode == "scan" else nearest(index, query)
                expected = in_clusters(index, flat, query, 10, lists)
                size = sum(segment_of(index).span(number)[1] for number in lists) / 4 / D
                missing = {match.id for match in expected} - {match.id for match in hits.matches}
                assert len(missing) <= round((1 - hits.coverage) * size)
                assert hits.exact == (hits.degraded == "") == (hits.coverage == 1.0)
                if hits.exact:
                    assert alike(hits.matches, expected)
            seen |= {hits.degraded for hits in found}
            if all(hits.exact for hits in found):
                break
        assert seen == {"deadline", ""}

    def test_codes_stand_in_for_vectors(self, index: TieredIndex, looks: list[int]) -> None:
        """As many finds as wanted, nearly the right scores."""
        query = clustered(1, seed=2)[0]
        hits, expected = index.find(query, 10, deadline=0.0), index.find(query, 10)
        assert looks[0] < 0
        assert not hits.exact
        ids = {match.id for match in hits.matches}
        assert len(ids) == 10
        assert len(ids & {match.id for match in expected.matches}) >= 8
        assert [m.score for m in hits.matches] == pytest.approx([m.score for m in expected.matches], abs=0.02)


def test_a_damaged_vector_is_not_covered(tmp_path: Path) -> None:
    index = filled(tmp_path, probed=10_000)
    segment = segment_of(index)
    with (segment.folder / ROWS).open("r+b") as rows:
        rows.seek(4 * D * int(segment.ids.rows(["v7"])[0]))
        rows.write(b"\xff\xff\xff\x7f")
    for mode in MODES:
        hits = index.find(clustered(1500)[7], 3, mode=mode)
        assert (hits.exact, hits.degraded) == (False, "rows")
        assert hits.coverage == pytest.approx(1 - 1 / 1500)
    assert index.find(-clustered(1500)[7], 3).coverage == 1.0


def test_no_such_mode(index: TieredIndex) -> None:
    with pytest.raises(InvalidInput, match="certified, scan, superset"):
        index.find(clustered(1)[0], 1, mode="quick")  # type: ignore[arg-type]


class TestBatch:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("k", [0, 1, 10, 3000])
    def test_it_finds_what_single_searches_find(self, index: TieredIndex, mode: Mode, k: int) -> None:
        queries = clustered(30, seed=2)
        for among in (None, names(400), ["new"], []):
            batch = index.find_many(queries, k, mode=mode, among=among)
            for query, hits in zip(queries, batch.hits, strict=True):
                alone = index.find(query, k, mode=mode, among=among)
                assert alike(hits.matches, alone.matches)
                assert (hits.exact, hits.whole, hits.lists) == (True, alone.whole, alone.lists)

    def test_every_vector_is_read_once(self, index: TieredIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many searches look at it; the account says how many that were, and in how many clusters."""
        segment, queries, rows = segment_of(index), clustered(30, seed=2), Counter[int]()
        read = segment.rows
        monkeypatch.setattr(segment, "rows", lambda places: rows.update(places) or read(places))
        for query in queries:
            index.find(query, 10)
        apart = sum(rows.values())
        rows.clear()
        batch = index.find_many(queries, 10)
        assert set(rows.values()) == {1}
        assert batch.lists == len(set().union(*(nearest(index, query) for query in queries)))
        assert batch.rows_read == len(rows) < apart

    def test_equal_questions_read_no_more_than_one(self, index: TieredIndex) -> None:
        query = clustered(1, seed=2)
        twice, many = (
            index.find_many(np.repeat(query, 2, axis=0), 10),
            index.find_many(np.repeat(query, 50, axis=0), 10),
        )
        assert (many.lists, many.rows_read) == (twice.lists, twice.rows_read) == (4, twice.hits[0].rows_read)

    def test_no_questions(self, index: TieredIndex) -> None:
        assert index.find_many(np.zeros((0, D), dtype=np.float32), 5).hits == []

    def test_its_ticket_ends_with_what_all_of_them_used(self, index: TieredIndex) -> None:
        queries = clustered(2, seed=3)
        ticket = index.lookahead(queries[0], expect=NEVER, lists=4)
        assert ticket.wait(5)
        batch = index.find_many(queries, 5, ticket=ticket)
        assert batch.hits[0].fetched == 4
        assert ticket.ended
