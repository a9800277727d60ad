"""Erasing from the index on disk: nothing of a vector is left in any file, and nothing else changes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from ctxmem.errors import StoreError
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered import folder, upkeep
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.segment import ROWS
from tests.unit.retrieval.fakes import alike
from tests.unit.retrieval.test_tiered import D, Floats, clustered, filled, names

WAYS = pytest.mark.parametrize("rewritten", [0, 50_000], ids=["overwritten", "rewritten"])


def traces(place: Path, vector: Floats, made: list[bytes], id: str) -> list[str]:
    """Files that hold two neighbouring values of a vector, what was made of it, or its id."""
    raw = vector.astype("<f4").tobytes()
    wanted = [raw[at : at + 8] for at in range(0, len(raw) - 4, 4)] + [*made, id.encode()]
    files = [path for path in place.rglob("*") if path.is_file()]
    return [path.name for path in files if any(one in path.read_bytes() for one in wanted)]


def made_of(index: TieredIndex, id: str) -> list[bytes]:
    """The code, the checksum and the residual of a vector."""
    segment = index.segment
    assert segment is not None
    [row] = segment.ids.rows([id]).tolist()
    code = segment.codes.index.sq.compute_codes(segment.rows([row])[0])[0]
    return [code.tobytes(), segment.sums[row].tobytes(), segment.residuals[row].tobytes()]


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments are written anew; here large ones begin at none, where a test asks for it."""
    if "rewritten" in request.fixturenames:
        monkeypatch.setattr(upkeep, "REWRITTEN", request.getfixturevalue("rewritten"))


@WAYS
@pytest.mark.parametrize("before", ["held", "removed", "replaced"])
def test_nothing_is_left_in_any_file(tmp_path: Path, rewritten: int, before: str) -> None:
    """Neither values, nor what was made of them, nor id, removed or replaced before or not; all others are found."""
    vectors = clustered(1500)
    vectors[700] = -vectors[:30].mean(axis=0) / np.linalg.norm(
        vectors[:30].mean(axis=0)
    )  # far from all: a cluster alone
    index = TieredIndex(tmp_path, "e", D, probed=10_000)
    ids = [f"v{number}" if number != 700 else "a-name-of-its-own" for number in range(1500)]
    index.add(ids, vectors)
    index.compact(lists=300)
    flat, made = FlatIndex("e", D), made_of(index, "a-name-of-its-own")
    flat.add(ids, vectors)
    flat.remove(["a-name-of-its-own"])
    assert len(traces(tmp_path, vectors[700], made, "a-name-of-its-own")) == 5
    if before == "removed":
        index.remove(["a-name-of-its-own"])
    elif before == "replaced":
        index.add(["a-name-of-its-own"], clustered(1, seed=4))
    assert index.erase(["a-name-of-its-own", "nobody"]) == 1
    assert not traces(tmp_path, vectors[700], made, "a-name-of-its-own")
    for held in (index, TieredIndex(tmp_path, "e", D, probed=10_000)):
        assert len(held) == 1499
        for query in clustered(30, seed=5):
            hits = held.find(query, 10)
            assert hits.exact
            assert alike(hits.matches, flat.search(query[None], 10)[0])


@WAYS
def test_what_was_removed_is_erased_together(tmp_path: Path, rewritten: int) -> None:
    index = filled(tmp_path, probed=10_000)
    index.remove(names(400))
    prints = {f"v{at}": made_of(index, f"v{at}") for at in range(0, 400, 40)}
    assert index.erase() == 400
    assert index.erase() == 0
    assert not any(traces(tmp_path, clustered(1500)[int(id[1:])], made, "no id") for id, made in prints.items())


@WAYS
def test_an_index_that_is_erased_whole_leaves_no_segment(tmp_path: Path, rewritten: int) -> None:
    index = filled(tmp_path, count=60)
    made = made_of(index, "v3")
    assert index.erase(names(60)) == 60
    assert not traces(tmp_path, clustered(60)[3], made, "v3")
    assert index.search(clustered(1), 5) == [[]]
    index.add(["v3"], clustered(60)[3:4])
    index.compact()
    assert TieredIndex(tmp_path, "e", D).find(clustered(60)[3], 1).matches[0].id == "v3"


@WAYS
def test_what_comes_back_is_there(tmp_path: Path, rewritten: int) -> None:
    """The same vector under the same id, added after it was erased, and after a restart."""
    index, row = filled(tmp_path, probed=10_000), clustered(1500)[7:8]
    index.erase(["v7"])
    index.add(["v7"], row)
    assert index.find(row[0], 1).matches[0].id == "v7"
    index = TieredIndex(tmp_path, "e", D, probed=10_000, trusted=False)
    index.add(["v7", "v8"], clustered(1500)[7:9])
    assert [match.id for match in index.find(row[0], 1).matches] == ["v7"]


def test_a_damaged_neighbour_keeps_nothing_on_the_disk(tmp_path: Path) -> None:
    """A segment that cannot be written anew is overwritten."""
    index = filled(tmp_path, probed=10_000)
    made, segment = made_of(index, "v7"), index.segment
    assert segment is not None
    with (segment.folder / ROWS).open("r+b") as rows:
        rows.seek(4 * D * int(segment.ids.rows(["v9"])[0]))
        rows.write(b"\xff\xff\xff\x7f")
    assert index.erase(["v7"]) == 1
    assert not traces(tmp_path, clustered(1500)[7], made, "v7\0")
    assert index.find(clustered(1500)[9], 3).degraded == "rows"


def test_a_segment_that_is_left_out_is_removed(tmp_path: Path) -> None:
    """Another embedder's, or a damaged one: its vectors are on the disk all the same."""
    made = made_of(filled(tmp_path), "v3")
    other = TieredIndex(tmp_path, "other", D)
    assert other.erase() == 0
    assert not traces(tmp_path, clustered(1500)[3], made, "v3")


@WAYS
def test_searches_go_on_and_see_it_whole_or_not(tmp_path: Path, rewritten: int) -> None:
    """While vectors are erased one after the other, each result is exact and has no other fault than that."""
    index, vectors = filled(tmp_path, probed=10_000), clustered(1500)
    expected = FlatIndex("e", D)
    expected.add(names(1500)[40:], vectors[40:])
    done, wrong = threading.Event(), []

    def ask() -> None:
        for query in clustered(10_000, seed=7):
            if done.is_set():
                return
            hits = index.find(query, 45)
            left = [match for match in hits.matches if int(match.id[1:]) >= 40]
            if not hits.exact or not alike(left, expected.search(query[None], len(left))[0]):
                wrong.append(hits)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(0, 40, 5):
        assert index.erase(names(at + 5)[at:]) == 5
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cut_off_anywhere_it_is_begun_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at each write that is waited for: the index opens whole, with all others in it.

    Once the vector is not found any more, nothing of it is on the disk.
    """
    monkeypatch.setattr(upkeep, "REWRITTEN", 0)
    vector, found = clustered(60)[3], []
    for last in range(100):
        place = tmp_path / str(last)
        index = filled(place, count=60, probed=10_000)
        made = made_of(index, "v3")
        child = os.fork()
        if not child:
            _die_at_sync(monkeypatch, last)
            index.erase(["v3"])
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        again = TieredIndex(place, "e", D, probed=10_000)
        found.append("v3" in [match.id for match in again.find(vector, 60).matches])
        assert len(again) == 59 + found[-1]
        assert bool(traces(place, vector, made, "v3\0")) == found[-1]
        if status == 0:
            break
    assert len(found) > 5
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (True, False)


def _die_at_sync(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """End this process at the sync of that number, before it is done."""
    count = iter(range(1000))

    def sync(handle: int) -> None:
        if next(count) == last:
            os._exit(1)

    monkeypatch.setattr(os, "fsync", sync)


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector is not found any more, and leaves the disk with the next attempt."""
    index = filled(tmp_path, probed=10_000)
    made, row = made_of(index, "v7"), clustered(1500)[7]
    with monkeypatch.context() as full:
        full.setattr(folder.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(StoreError, match="cannot be written"):
            index.erase(["v7"])
    assert index.find(row, 1).matches[0].id != "v7"
    assert traces(tmp_path, row, made, "v7\0")
    assert index.erase(["v7"]) == 1
    assert not traces(tmp_path, row, made, "v7\0")
