"""Compaction of the index on disk while other threads search and write."""

from __future__ import annotations

import threading
from pathlib import Path

from ctxmem.retrieval.flat import FlatIndex
from tests.unit.retrieval.fakes import alike
from tests.unit.retrieval.test_tiered import D, clustered, filled, names


def test_changes_during_a_compaction_are_kept(tmp_path: Path) -> None:
    """Whatever other threads add, replace and remove while the segment is written."""
    index, flat = filled(tmp_path, probed=10_000), FlatIndex("e", D)
    flat.add(names(1500), clustered(1500))
    more = clustered(300, seed=5)

    def change(_: str, share: float) -> None:
        if share < 1 or len(flat) != 1500:
            return
        for held in (index, flat):
            held.add([f"v{number}" for number in range(100, 250)], more[:150])
            held.add([f"new{number}" for number in range(150)], more[150:])
            held.remove([f"v{number}" for number in range(50)])

    index.compact(lists=20, progress=change)
    assert len(index) == len(flat) == 1600
    for query in clustered(50, seed=6):
        assert alike(index.search(query[None], 20)[0], flat.search(query[None], 20)[0])


def test_two_compactions_at_once_lose_nothing(tmp_path: Path) -> None:
    """What is added while both are under way is there after them."""
    index, more = filled(tmp_path, probed=10_000), clustered(200, seed=9)
    threads = [threading.Thread(target=index.compact, kwargs={"lists": lists}) for lists in (10, 20, 30)]
    for thread in threads:
        thread.start()
    for at in range(200):
        index.add([f"new{at}"], more[[at]])
    for thread in threads:
        thread.join()
    assert len(index) == 1700
    assert all(index.find(more[at], 1).matches[0].id == f"new{at}" for at in range(200))


def test_searches_go_on_during_a_compaction(tmp_path: Path) -> None:
    index, expected = filled(tmp_path, probed=10_000), FlatIndex("e", D)
    expected.add(names(1500), clustered(1500))
    done, wrong = threading.Event(), []

    def ask() -> None:
        for query in clustered(10_000, seed=7):
            if done.is_set():
                return
            if not alike(index.search(query[None], 5)[0], expected.search(query[None], 5)[0]):
                wrong.append(query)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for lists in (10, 20, 30):
        index.compact(lists=lists)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 1
