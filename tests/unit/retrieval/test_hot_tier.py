"""Clusters held by torch: whatever is held, searches find what they find without."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxmem.errors import ConfigError
from ctxmem.lm.tier import TorchTier
from ctxmem.ports import Match
from ctxmem.retrieval.disk import OnDisk
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.tiered.hits import MODES
from ctxmem.retrieval.tiered.hot import brought_up
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import ROWS, Segment
from ctxmem.stores.sql import SqlStore
from tests.databases import database
from tests.unit.retrieval.fakes import Hashing, alike
from tests.unit.retrieval.test_tiered import D, clustered, filled, names

NEVER = 1e9
LISTS = 40


def segment_of(index: TieredIndex) -> Segment:
    assert index.segment is not None
    return index.segment


def held(index: TieredIndex, lists: Sequence[int], *, room: int = 1 << 20) -> TorchTier:
    """A tier that holds these clusters of an index, which it is given to."""
    index.hot = tier = TorchTier(room=room)
    for number in lists:
        brought_up(segment_of(index), number, tier)
    return tier


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TieredIndex:
    """Vectors on disk and in memory, some of them removed and replaced since."""
    index = filled(tmp_path_factory.mktemp("hot"), probed=6)
    index.remove(names(100))
    index.add(["new", "v200"], clustered(2, seed=9))
    return index


class TestSame:
    @settings(max_examples=200, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1), k=st.integers(0, 60), probed=st.integers(1, LISTS))
    def test_whatever_is_held(self, shared: TieredIndex, seed: int, share: float, k: int, probed: int) -> None:
        """All modes, one query or several, all vectors or some, any share of the clusters, room for all or a few."""
        rng = random.Random(seed)
        queries = clustered(rng.choice((1, 1, 5)), seed=seed)
        among = rng.choice((None, ["new", *rng.sample(names(1500), 200)]))
        mode, shared.probed = rng.choice(MODES), probed
        shared.hot = None
        expected = shared.find_many(queries, k, mode=mode, among=among)
        held(shared, [n for n in range(LISTS) if rng.random() < share], room=rng.choice((1 << 14, 1 << 20)))
        found = shared.find_many(queries, k, mode=mode, among=among)
        for one, other in zip(found.hits, expected.hits, strict=True):
            assert alike(one.matches, other.matches)
            assert (one.exact, one.whole, one.coverage, one.lists) == (True, other.whole, 1.0, other.lists)
        assert found.lists == expected.lists

    @pytest.mark.parametrize("share", [0.3, 1.0])
    def test_as_faiss(self, tmp_path: Path, share: float) -> None:
        """Over the same clusters; where all are held nothing is read."""
        index, vectors = filled(tmp_path, probed=6), clustered(1500)
        quantizer = faiss.downcast_index(segment_of(index).codes.index.quantizer)
        plain = faiss.IndexIVFFlat(quantizer, D, LISTS, faiss.METRIC_INNER_PRODUCT)
        plain.own_fields, plain.nprobe = False, 6
        plain.add(vectors)
        held(index, random.Random(1).sample(range(LISTS), int(share * LISTS)))
        for query in clustered(200, seed=1):
            scores, rows = plain.search(query[None], 10)
            expected = [Match(f"v{row}", float(one)) for one, row in zip(scores[0], rows[0], strict=True) if row >= 0]
            hits = index.find(query, 10)
            assert alike(hits.matches, expected)
            assert hits.rows_read == 0 or share < 1

    def test_what_is_held_spares_reads(self, tmp_path: Path) -> None:
        """Of the other clusters as well: only what may be better than what is held is read."""
        index, queries = filled(tmp_path, probed=6), clustered(200, seed=1)
        without = sum(index.find(query, 10).rows_read for query in queries)
        held(index, range(0, LISTS, 2))
        assert sum(index.find(query, 10).rows_read for query in queries) < 0.75 * without

    def test_equal_scores_come_by_id(self, tmp_path: Path) -> None:
        """Of more copies of one vector than are wanted, on both sides of the split."""
        index = TieredIndex(tmp_path, "e", D, probed=8)
        index.add(names(300), np.repeat(clustered(3, seed=4), 100, axis=0))
        index.compact(lists=8)
        for some in (range(8), range(0, 8, 2)):
            held(index, some)
            found = index.find(clustered(3, seed=4)[1], 7).matches
            assert [match.id for match in found] == sorted(names(200)[100:])[:7]


class TestWhatIsHeld:
    def test_lookahead_brings_it_in(self, tmp_path: Path) -> None:
        """So that a search near the question reads nothing; a cancelled ticket brings no more."""
        index, query = filled(tmp_path, probed=4), clustered(1, seed=5)[0]
        expected = index.find(query, 10)
        index.hot = TorchTier()
        with index.lookahead(query, expect=NEVER) as ticket:
            assert ticket.wait(10)
            hits = index.find(query, 10, ticket=ticket)
        assert index.hot.held(segment_of(index)) == set(ticket.fetched)
        assert alike(hits.matches, expected.matches)
        assert (hits.rows_read, hits.fetched) == (0, 4) and expected.rows_read > 0

    def test_what_is_not_of_use_makes_room(self, tmp_path: Path) -> None:
        """Never more bytes than there is room for, and nothing larger than that."""
        index = filled(tmp_path, probed=1)
        segment, sizes = segment_of(index), np.diff(segment_of(index).starts) * 4 * D
        tier = held(index, range(LISTS), room=int(sizes[:30].sum()))
        assert tier.bytes <= sizes[:30].sum() and 0 < len(tier.held(segment)) < LISTS
        oldest = min(tier.held(segment))
        index.find(segment.codes.index.quantizer.reconstruct(oldest), 1)  # of use
        missing = next(number for number in range(LISTS) if number not in tier.held(segment) and sizes[number])
        assert brought_up(segment, missing, tier)
        assert {oldest, missing} <= tier.held(segment)
        assert not brought_up(segment, int(sizes.argmax()), TorchTier(room=int(sizes.max()) - 1))

    def test_tenants_share_room_and_nothing_else(self, tmp_path: Path) -> None:
        """Clusters of one index are not seen by another; they go with it."""
        one, other = filled(tmp_path / "one", probed=4), filled(tmp_path / "other", 700, probed=4)
        tier = held(one, range(LISTS))
        other.hot = tier
        query = clustered(1, seed=6)[0]
        found = other.find(query, 10)
        assert {match.id for match in found.matches} <= set(names(700)) and found.rows_read > 0
        assert tier.held(segment_of(other)) == frozenset()
        one.close()
        del one
        gc.collect()
        assert tier.bytes == 0

    def test_a_damaged_cluster_is_not_held(self, tmp_path: Path) -> None:
        """Its code stands in, and the result says so, as without a tier."""
        index = filled(tmp_path, probed=LISTS)
        segment = segment_of(index)
        with (segment.folder / ROWS).open("r+b") as file:
            file.write(b"\xff" * 8)
        broken = int(segment.codes.cluster_of([0])[0])
        tier = held(index, range(LISTS))
        assert broken not in tier.held(segment)
        hits = index.find(segment.codes.decoded(0), 3)
        assert (hits.exact, hits.degraded, hits.matches[0].id) == (False, "rows", segment.ids[0])

    def test_no_such_device(self) -> None:
        with pytest.raises(ConfigError, match="abacus"):
            TorchTier("abacus")


class TestErased:
    @pytest.mark.parametrize("probed", [3, LISTS])
    def test_it_is_neither_found_nor_held(self, tmp_path: Path, probed: int) -> None:
        index = filled(tmp_path, probed=probed)
        tier = held(index, range(LISTS))
        old, gone = segment_of(index), names(40)
        index.erase(gone)
        assert tier.held(old) == frozenset() and tier.bytes == 0
        for query in clustered(40):
            assert not set(gone) & {match.id for match in index.find(query, 5).matches}
        for number in range(LISTS):  # by a ticket of before, say
            brought_up(old, number, tier)
        rows = [int(row) for row in old.ids.rows(gone)]
        kept = [n for n in tier.held(old) if any(old.starts[n] <= row < old.starts[n + 1] for row in rows)]
        assert kept == []

    def test_while_others_search(self, tmp_path: Path) -> None:
        """Nobody finds a vector after its erasure returned, whatever is held and brought in meanwhile."""
        index, wrong, done = filled(tmp_path, probed=LISTS), [], threading.Event()
        held(index, range(LISTS))
        gone: list[str] = []

        def ask(seed: int) -> None:
            for query in clustered(10_000, seed=seed):
                if done.is_set():
                    return
                before = set(gone)
                ticket = index.lookahead(query, expect=NEVER, lists=5)
                hits = index.find(query, 20, ticket=ticket)
                wrong.extend(before & {match.id for match in hits.matches})

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in (11, 12, 13)]
        for thread in threads:
            thread.start()
        for start in range(0, 60, 10):
            some = names(start + 10)[start:]
            index.erase(some)
            gone += some
        done.set()
        for thread in threads:
            thread.join()
        index.close()
        assert wrong == []


def test_late_searches_cover_what_is_held(tmp_path: Path) -> None:
    """Past a deadline the tier's share is still exact, and counts as covered."""
    index, queries = filled(tmp_path, probed=LISTS), clustered(30, seed=3)
    covered, proved = [], []
    for some in ((), range(0, LISTS, 4), range(LISTS)):
        held(index, some)
        hits = index.find_many(queries, 10, deadline=0.0).hits
        covered.append(sum(one.coverage for one in hits))
        proved.append(sum(one.exact for one in hits))
    assert covered[0] < covered[1] < covered[2] == len(queries)
    assert proved[1] < proved[2] == len(queries)


def test_a_library_finds_the_same(tmp_path: Path) -> None:
    """On disk, with a tier for all namespaces."""
    store = SqlStore(database(tmp_path / "log.db"))
    tier = TorchTier()
    rows = [Source(f"tram {n} stops at gate {n % 7}", id=f"d{n}") for n in range(200)]
    found = []
    for hot in (None, tier):
        library = Library(store.documents, Hashing(), indexes=OnDisk(tmp_path / str(hot is None), kept=20, hot=hot))
        library.ingest("t", "n", rows)
        query = Query("tram at gate 3", "n", k=20)
        library.search("t", query)
        library.close()
        library.prefetch("t", "n", query.text, expect=NEVER)
        found.append([library.search("t", query).found for _ in range(3)])
    store.close()
    assert found[0] == found[1]
