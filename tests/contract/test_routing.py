"""Searches placed by what workers say in the shared cache: to who holds most, never to who is too busy or silent."""

from __future__ import annotations

import multiprocessing.context
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput
from ctxmem.lm.tier import TorchTier
from ctxmem.ports import Cache, Match
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.routing import AHEAD, Router
from ctxmem.retrieval.tiered.segment import Segment
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.redis import RedisCache
from ctxmem.stores.valkey import EmbeddedValkey
from tests.unit.retrieval.test_tiered import D, Floats, clustered, filled

WORKERS = ("one", "two", "three")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TieredIndex:
    """Of forty clusters."""
    return filled(tmp_path_factory.mktemp("routing"), probed=4)


@pytest.fixture
def segment(index: TieredIndex) -> Segment:
    assert index.segment is not None
    return index.segment


def some(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


class TestPlaces:
    def test_who_holds_most_gets_it(self, cache: Cache, segment: Segment) -> None:
        """Said by the workers themselves, each by a router of its own."""
        for worker, clusters in zip(WORKERS, ([0, 1, 39], [2, 3], []), strict=True):
            Router(cache, segment, WORKERS).publish(worker, clusters)
        router = Router(cache, segment, WORKERS)
        assert router.place([some(3, 2, 9), some(1, 39, 3), some(0, 8)]) == ["two", "one", "one"]

    def test_nobody_who_is_much_busier_gets_it(self, segment: Segment) -> None:
        """Whatever is held; until searches have ended."""
        router = Router(MemoryCache(), segment, WORKERS)
        router.publish("two", range(40))
        first = router.place([some(1, 2)] * AHEAD)
        assert first == ["two"] * AHEAD
        assert set(router.place([some(1, 2)] * 2)) <= {"one", "three"}
        router.done(first)
        assert router.place([some(1, 2)]) == ["two"]

    def test_what_is_asked_together_goes_together(self, segment: Segment) -> None:
        """Before anybody holds anything: like searches to one worker, unlike ones to others, all with their share."""
        router = Router(MemoryCache(), segment, ["one", "two"], ahead=3)
        left, right = [some(1, 2, 3), some(2, 3, 4), some(1, 3, 4)], [some(30, 31), some(31, 32), some(30, 32)]
        placed = router.place([one for pair in zip(left, right, strict=True) for one in pair])
        assert len(set(placed[::2])) == len(set(placed[1::2])) == 1 and placed[0] != placed[1]

    def test_without_word_the_least_busy_gets_it(self, segment: Segment) -> None:
        router = Router(MemoryCache(), segment, WORKERS)
        placed = [router.place([some(number)])[0] for number in range(9)]
        assert set(Counter(placed).values()) == {3}
        assert router.place([]) == []

    def test_threads_share_the_load(self, segment: Segment) -> None:
        router, placed = Router(MemoryCache(), segment, WORKERS), []
        threads = [
            threading.Thread(target=lambda at=at: placed.extend(router.place([some(at), some(at + 9)])))
            for at in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(placed) == 48 and max(Counter(placed).values()) - min(Counter(placed).values()) <= AHEAD
        router.done(placed)
        assert set(Counter(router.place([some(1)])[0] for _ in range(3))) == set(WORKERS)


class TestWhatIsNotHeard:
    def test_what_is_too_old(self, cache: Cache, segment: Segment) -> None:
        router = Router(cache, segment, WORKERS, ttl=0.2)
        router.publish("three", [5, 6])
        assert router.place([some(5, 6)]) == ["three"]
        router.done(["three"])
        time.sleep(0.3)
        assert router.place([some(5, 6)]) == ["one"]

    def test_another_index_s_or_tenant_s(self, cache: Cache, segment: Segment, tmp_path: Path) -> None:
        """One that was compacted since has other clusters under the same numbers."""
        other = filled(tmp_path, 1400).segment
        assert other is not None and other.manifest.lists == segment.manifest.lists
        Router(cache, other, WORKERS).publish("three", range(40))
        Router(cache, segment, WORKERS, tenant="t").publish("three", range(40))
        assert Router(cache, segment, WORKERS).place([some(5)]) == ["one"]

    @pytest.mark.parametrize("said", [b"", b"\xff", b"\xff" * 6])
    def test_what_is_no_word(self, segment: Segment, said: bytes) -> None:
        class Broken(MemoryCache):
            def get(self, tenant: str, key: str) -> bytes:
                return said

        assert Router(Broken(), segment, WORKERS).place([some(5)]) == ["one"]

    def test_a_cache_that_goes(self, valkey: EmbeddedValkey, segment: Segment) -> None:
        """Searches are placed by load alone."""
        with closing(RedisCache(valkey.url)) as cache:
            router = Router(cache, segment, WORKERS)
            router.publish("two", [7])
            assert router.place([some(7)]) == ["two"]
            valkey.kill()
            router.publish("two", [7])
            assert router.place([some(7)]) + router.place([some(7)]) == ["one", "three"]


def test_bad_input_is_named(segment: Segment) -> None:
    for workers in ([], ["one", "one"]):
        with pytest.raises(InvalidInput, match="workers"):
            Router(MemoryCache(), segment, workers)
    router = Router(MemoryCache(), segment, WORKERS)
    for number in (-1, 40):
        with pytest.raises(InvalidInput, match="40 clusters"):
            router.publish("one", [number])
        with pytest.raises(InvalidInput, match="40 clusters"):
            router.place([some(number)])


SOON = 3.0
"""Seconds that a worker's word counts for."""


def work(pipe: Connection, worker: str, folder: Path, url: str) -> None:
    """A process that serves searches: looks ahead for each, finds, says what it holds."""
    index = TieredIndex(folder, "e", D, probed=4)
    assert index.segment is not None
    index.hot = tier = TorchTier()
    with closing(RedisCache(url)) as cache:
        router = Router(cache, index.segment, ("one", "two"), ttl=SOON)
        while (query := pipe.recv()) is not None:
            before = tier.held(index.segment)
            with index.lookahead(query, expect=1e9, lists=4) as ticket:
                ticket.wait(30)
                found = index.find(query, 5, ticket=ticket)
            router.publish(worker, tier.held(index.segment))
            pipe.send((found.matches, before))
    index.close()


Worker = tuple[multiprocessing.context.SpawnProcess, Connection]


@pytest.fixture
def workers(tmp_path: Path, valkey: EmbeddedValkey) -> Iterator[dict[str, Worker]]:
    """Two processes that are up, each with its copy of the index."""
    context, made = multiprocessing.get_context("spawn"), {}
    for worker in ("one", "two"):
        filled(tmp_path / worker, probed=4).close()
        ours, theirs = context.Pipe()
        made[worker] = context.Process(target=work, args=(theirs, worker, tmp_path / worker, valkey.url)), ours
        made[worker][0].start()
    for name in made:
        asked(made[name], clustered(1, seed=9)[0])
    yield made
    for process, _ in made.values():
        process.kill()
        process.join()


def asked(worker: Worker, query: Floats) -> tuple[list[Match], frozenset[int]]:
    """What a worker finds, and which clusters it held before."""
    worker[1].send(query)
    found: tuple[list[Match], frozenset[int]] = worker[1].recv()
    return found


def test_two_processes_and_one_that_dies(tmp_path: Path, valkey: EmbeddedValkey, workers: dict[str, Worker]) -> None:
    """A search comes back to who did it before; when that one is killed its word is soon forgotten."""
    plain, queries = TieredIndex(tmp_path / "one", "e", D, probed=4), clustered(12, seed=8)
    assert plain.segment is not None
    near, firsts = [plain.segment.nearest(query, 4) for query in queries], {}
    with closing(RedisCache(valkey.url)) as cache:
        router = Router(cache, plain.segment, ("one", "two"), ahead=1)  # one each of two at once
        for number in [*range(0, 12, 2), *range(0, 12, 2)]:
            placed = router.place(near[number : number + 2])
            for at, worker in enumerate(placed, number):
                matches, before = asked(workers[worker], queries[at])
                assert [match.id for match in matches] == [match.id for match in plain.find(queries[at], 5).matches]
                assert at not in firsts or set(near[at].tolist()) <= before
                firsts.setdefault(at, worker)
            router.done(placed)
        assert set(firsts.values()) == {"one", "two"}
        workers["one"][0].kill()
        lost = next(number for number, worker in firsts.items() if worker == "one")
        router.done(router.place([near[lost]]))
        time.sleep(SOON)
        asked(workers["two"], queries[lost])
        assert router.place([near[lost]]) == ["two"]
