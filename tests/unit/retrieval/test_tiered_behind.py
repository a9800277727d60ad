"""Compaction behind the searches: they wait for nothing, and find what is there at each moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxmem.errors import StoreError
from ctxmem.retrieval.disk import OnDisk
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.tiered import upkeep
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.stores.sql import SqlStore
from tests.unit.retrieval.fakes import Hashing, alike
from tests.unit.retrieval.test_tiered import D, clustered, names


class Held:
    """A compaction that stops at its first stage until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go, self.stages = threading.Event(), threading.Event(), list[str]()

    def build(self, *given: Any, progress: Callable[[str, float], None] | None, **options: Any) -> None:
        def told(stage: str, share: float) -> None:
            self.stages.append(stage)
            self.begun.set()
            assert self.go.wait(20)
            if progress is not None:
                progress(stage, share)

        _build(*given, progress=told, **options)


_build = upkeep.build


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(upkeep, "build", made.build)
    yield made
    made.go.set()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[TieredIndex]:
    """A thousand vectors in memory, of which a hundred should stay there."""
    made = TieredIndex(tmp_path, "e", D, probed=10_000, kept=100)
    made.add(names(1000), clustered(1000))
    yield made
    made.close()


@pytest.fixture
def flat() -> FlatIndex:
    made = FlatIndex("e", D)
    made.add(names(1000), clustered(1000))
    return made


def same(index: TieredIndex, flat: FlatIndex) -> bool:
    """Whether both find the same, and the index says that it is proved."""
    for query in clustered(30, seed=2):
        hits = index.find(query, 10)
        if not hits.exact or not alike(hits.matches, flat.search(query[None], 10)[0]):
            return False
    return len(index) == len(flat)


def test_searches_and_writes_go_on_meanwhile(index: TieredIndex, flat: FlatIndex, held: Held) -> None:
    """What is added, replaced and removed at each stage is found or not, then and afterwards."""
    index.tend()
    assert held.begun.wait(20)
    more = clustered(60, seed=5)
    assert index.segment is None
    for one in (index, flat):
        one.add([*names(130)[100:], *(f"new{number}" for number in range(30))], more)
        one.remove(names(20))
    assert same(index, flat)
    index.tend()  # one is going on
    held.go.set()
    index._upkeep.wait()
    assert len(index.segment or ()) == 1000
    assert held.stages.count("assign") == 1
    assert same(index, flat)
    index.compact()
    assert len(index.segment or ()) == 1010
    assert same(index, flat)


def test_the_segment_before_serves_until_the_next_is_there(index: TieredIndex, flat: FlatIndex, held: Held) -> None:
    held.go.set()
    index.compact()
    first = index.segment
    held.go.clear()
    held.begun.clear()
    for one in (index, flat):
        one.add([f"new{number}" for number in range(200)], clustered(200, seed=5))
        one.remove(names(50))
    index.tend()
    assert held.begun.wait(20)
    assert index.segment is first
    assert same(index, flat)
    held.go.set()
    index._upkeep.wait()
    assert len(index.segment or ()) == 1150
    assert same(index, flat)


def test_closing_gives_it_up(index: TieredIndex, flat: FlatIndex, held: Held, tmp_path: Path) -> None:
    """And waits until its thread has ended; nothing half-written is left, and no other begins."""
    index.tend()
    assert held.begun.wait(20)
    threading.Timer(0.1, held.go.set).start()
    index.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "compaction" not in [thread.name for thread in threading.enumerate()]
    assert same(index, flat)
    index.tend()
    assert index.segment is None


def test_a_full_disk_is_told_and_tried_again(
    index: TieredIndex, flat: FlatIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(upkeep, "build", full)
        index.tend()
        index._upkeep.wait()
    assert "vectors stay in memory: no space left" in caplog.text
    assert same(index, flat)
    index.tend()
    index._upkeep.wait()
    assert len(index.segment or ()) == 1000
    assert same(index, flat)


@pytest.fixture
def library(store: SqlStore, tmp_path: Path) -> Iterator[Library]:
    made = Library(store.documents, Hashing(), indexes=OnDisk(tmp_path / "vectors", kept=20, probed=10_000))
    made.ingest("t", "n", [Source(f"tram {n} stops at gate {n % 7}", id=f"d{n}") for n in range(60)])
    yield made
    made.close()


def found(library: Library, text: str, k: int = 60) -> list[str]:
    done = library.search("t", Query(text, "n", k=k, mode="dense"))
    assert done.exact
    return [one.document_id for one in done.found]


def test_a_librarys_search_does_not_wait_for_it(library: Library, store: SqlStore, held: Held) -> None:
    """Nor does one after a write, or one while an erasure waits for the disk; all see what was written before them."""
    plain = Library(store.documents, Hashing())
    assert found(library, "tram 12") == found(plain, "tram 12")
    assert held.begun.wait(20)
    library.ingest("t", "n", [Source("the ferry to the island", id="new")])
    assert found(library, "the ferry", 1) == ["new"]
    deleting = threading.Thread(target=library.delete, args=("t", "n", ["d12"]))
    deleting.start()
    while "d12" in found(library, "tram 12"):
        pass
    assert deleting.is_alive()
    assert found(library, "tram 12") == found(plain, "tram 12")
    held.go.set()
    deleting.join()
    assert "d12" not in found(library, "tram 12") == found(plain, "tram 12")


def test_a_library_that_closes_leaves_the_disk_to_the_next(library: Library, held: Held, tmp_path: Path) -> None:
    found(library, "tram 12")
    assert held.begun.wait(20)
    threading.Timer(0.1, held.go.set).start()
    library.close()
    assert not [path for path in tmp_path.rglob("rows.f32") if path.is_file()]
    assert len(found(library, "tram 12")) == 60
