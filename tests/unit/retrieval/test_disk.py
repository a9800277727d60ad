"""A library whose large namespaces lie on disk: found as in memory, repaired from SQL, erased at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctxmem.document import FORGET
from ctxmem.errors import StoreError, Unavailable
from ctxmem.retrieval.disk import OnDisk
from ctxmem.retrieval.library import Library, Query, Source
from ctxmem.retrieval.tiered import folder, upkeep
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import CODES, ROWS, row_sums
from ctxmem.stores.sql import SqlStore
from tests.unit.retrieval.fakes import Hashing

QUERIES = ["tram number 12", "gate 3", "the ferry", "number 44 stops"]
Opening = Callable[[], Library]


@pytest.fixture
def disk(tmp_path: Path) -> OnDisk:
    """Twenty vectors in memory, and no cluster left out."""
    return OnDisk(tmp_path / "vectors", kept=20, probed=10_000)


@pytest.fixture
def opening(store: SqlStore, disk: OnDisk) -> Opening:
    """The library as after a restart."""
    return lambda: Library(store.documents, Hashing(), indexes=disk)


@pytest.fixture
def library(opening: Opening) -> Library:
    """Sixty documents, half of them ann's, that have been searched."""
    made = opening()
    made.ingest("t", "n", [document(number) for number in range(60)])
    made.search("t", Query("tram", "n"))
    written(made)
    return made


def document(number: int, text: str = "") -> Source:
    said = text or f"tram number {number} stops at gate {number % 7}"
    return Source(said, id=f"d{number}", user_id="ann" if number % 2 else "bob", session_id=f"s{number}")


def index_of(library: Library) -> TieredIndex:
    index = library._held["t", "n"].hybrid._index
    assert isinstance(index, TieredIndex)
    return index


def written(library: Library) -> None:
    """Wait until what goes to the disk is there."""
    index_of(library)._upkeep.wait()


def same_as_in_memory(library: Library, store: SqlStore) -> bool:
    """Whether both find the same, and say that it is exact."""
    plain = Library(store.documents, Hashing())
    for text in QUERIES:
        asked = Query(text, "n", k=15, mode="dense")
        ours, expected = library.search("t", asked), plain.search("t", asked)
        if [one.id for one in ours.found] != [one.id for one in expected.found] or not ours.exact or ours.degraded:
            return False
    return True


def kept_in(disk: OnDisk, text: str) -> bool:
    """Whether a text's vector is in any file, or its checksum."""
    vector = Hashing().embed([text])
    raw, sums = vector.tobytes(), row_sums(vector).tobytes()
    files = [path.read_bytes() for path in disk.root.rglob("*") if path.is_file()]
    return any(raw in file or sums in file for file in files)


def test_a_large_namespace_goes_to_the_disk(library: Library, store: SqlStore, disk: OnDisk) -> None:
    """A small one does not, and what is added later stays in memory until it is much."""
    assert index_of(library).segment is not None
    assert same_as_in_memory(library, store)
    library.ingest("t", "small", [document(number) for number in range(20)])
    library.search("t", Query("tram", "small"))
    assert not disk.folder("t", "small").exists()
    library.ingest("t", "n", [document(number) for number in range(60, 70)])
    assert same_as_in_memory(library, store)
    assert len(index_of(library).segment or ()) == 60
    library.ingest("t", "n", [document(number) for number in range(70, 100)])
    assert same_as_in_memory(library, store)
    written(library)
    assert len(index_of(library).segment or ()) == 100
    assert same_as_in_memory(library, store)


def test_after_a_restart_the_disk_is_used_again(
    library: Library, store: SqlStore, opening: Opening, disk: OnDisk
) -> None:
    """Nothing is written anew; what other processes put in meanwhile is found, and what they deleted leaves it."""
    segment = index_of(library).segment
    again = opening()
    assert same_as_in_memory(again, store)
    now = index_of(again).segment
    assert segment is not None
    assert now is not None
    assert now.folder == segment.folder
    Library(store.documents, Hashing()).delete("t", "n", ["d3"])
    Library(store.documents, Hashing()).ingest("t", "n", [document(90, "the ferry to the island")])
    assert kept_in(disk, str(document(3).data))
    assert same_as_in_memory(opening(), store)
    assert not kept_in(disk, str(document(3).data))


@pytest.mark.parametrize("damage", ["folder", CODES, ROWS, "current"])
def test_a_lost_disk_is_made_anew_from_sql(
    library: Library, store: SqlStore, opening: Opening, disk: OnDisk, damage: str
) -> None:
    """Missing or cut off: the next search is exact, and the disk whole again."""
    if damage == "folder":
        shutil.rmtree(disk.root)
    else:
        path = next(disk.root.rglob(damage))
        path.write_bytes(path.read_bytes()[:-5])
    again = opening()
    assert same_as_in_memory(again, store)
    written(again)
    assert len(index_of(again).segment or ()) == 60
    assert sum(path.name == ROWS for path in disk.root.rglob("*")) == 1


def test_a_damaged_vector_is_told_and_read_anew(library: Library, store: SqlStore, disk: OnDisk) -> None:
    """The search that finds it says so, the next one is exact."""
    segment = index_of(library).segment
    assert segment is not None
    with (segment.folder / ROWS).open("r+b") as rows:
        rows.write(np.full(32 * len(segment), 1e9, dtype="<f4").tobytes())
    first = library.search("t", Query("tram number 12", "n", mode="dense"))
    assert (first.exact, first.degraded) == (False, ("rows",))
    for _ in range(20):
        if same_as_in_memory(library, store):
            break
    assert same_as_in_memory(library, store)


def test_what_is_put_out_of_memory_leaves_the_disk_to_the_next(
    library: Library, store: SqlStore, disk: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that still has the old one finds what is there, and writes nothing under the new one."""
    monkeypatch.setattr("ctxmem.retrieval.library.MOST_HELD", 1)
    old = library._held["t", "n"]
    library.search("t", Query("tram", "other"))
    library.ingest("t", "n", [document(number) for number in range(60, 99)])
    assert same_as_in_memory(library, store)
    written(library)
    assert library._held["t", "n"] is not old
    before = sorted(disk.root.rglob("*"))
    store.documents.delete("t", "n", ["d5"]).result()
    old.catch_up()
    assert len(old.hybrid) == 98
    with pytest.raises(Unavailable):
        old.erase()
    assert sorted(disk.root.rglob("*")) == before
    assert library.forget("t", "n") == 1
    assert not kept_in(disk, str(document(5).data))


def test_clusters_that_are_left_out_are_told(store: SqlStore, disk: OnDisk) -> None:
    library = Library(store.documents, Hashing(), indexes=OnDisk(disk.root, kept=20, probed=1))
    library.ingest("t", "n", [document(number) for number in range(60)])
    library.search("t", Query("tram", "n"))
    written(library)
    assert not library.search("t", Query("tram", "n")).exact
    assert library.search("t", Query("tram", "n", mode="words")).exact


@pytest.mark.parametrize("rewritten", [0, 50_000])
class TestErasing:
    @pytest.fixture(autouse=True)
    def way(self, rewritten: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upkeep, "REWRITTEN", rewritten)

    def test_a_deleted_document_leaves_the_disk(self, library: Library, store: SqlStore, disk: OnDisk) -> None:
        text = document(12).data
        assert isinstance(text, str)
        assert kept_in(disk, text)
        assert library.delete("t", "n", ["d12"]) == 1
        assert not kept_in(disk, text)
        assert same_as_in_memory(library, store)

    @pytest.mark.parametrize("restarted", [False, True])
    def test_a_user_leaves_the_disk(
        self, library: Library, store: SqlStore, opening: Opening, disk: OnDisk, restarted: bool
    ) -> None:
        """By a job that commits with the erasure, whoever takes it up; a process that has just started, too."""
        store.erase_user("t", "ann")
        [left] = store.jobs.jobs("t")
        assert (left.kind, left.payload) == (FORGET, {"namespace": "n"})
        texts = [str(document(number).data) for number in range(60)]
        assert all(kept_in(disk, text) for text in texts)
        assert (opening() if restarted else library).forget("t", str(left.payload["namespace"])) in (0, 30)
        assert [kept_in(disk, text) for text in texts] == [number % 2 == 0 for number in range(60)]
        assert same_as_in_memory(opening(), store)

    def test_a_session_leaves_the_disk(self, library: Library, store: SqlStore, disk: OnDisk) -> None:
        store.erase_session("t", "s12")
        assert store.jobs.jobs("t")[0].kind == FORGET
        assert library.forget("t", "n") == 1
        assert not kept_in(disk, str(document(12).data))

    def test_a_full_disk_is_told_and_the_search_goes_on(
        self, library: Library, store: SqlStore, disk: OnDisk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is erased is found no more; the next attempt takes it off the disk."""
        with monkeypatch.context() as full:
            full.setattr(folder.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
            with pytest.raises(StoreError):
                library.delete("t", "n", ["d12"])
            assert same_as_in_memory(library, store)
            library.ingest("t", "n", [document(number) for number in range(60, 99)])
            assert same_as_in_memory(library, store)
            written(library)
            assert same_as_in_memory(library, store)
        library.forget("t", "n")
        assert not kept_in(disk, str(document(12).data))


def test_without_a_disk_there_is_nothing_to_forget(store: SqlStore) -> None:
    assert Library(store.documents, Hashing()).forget("t", "n") == 0


def test_nothing_erased_leaves_no_job(store: SqlStore) -> None:
    store.erase_user("t", "nobody")
    assert store.jobs.jobs("t") == []
