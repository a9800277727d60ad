"""Searches of the index on disk beside each other and beside writers; deadlines count no wait for other searches."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered import held
from ctxmem.retrieval.tiered.codes import Floats
from ctxmem.retrieval.tiered.sharing import Sharing
from tests.unit.retrieval.test_tiered import clustered, filled


def test_a_search_does_not_wait_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes long in memory leaves others their time."""
    index, inside, go = filled(tmp_path, probed=10_000), threading.Event(), threading.Event()
    index.add(["new"], clustered(1, seed=3))
    search = FlatIndex.search

    def slow(self: FlatIndex, *asked: object, **rest: object) -> list[list[Match]]:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert go.wait(20)
        return search(self, *asked, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FlatIndex, "search", slow)
    other = threading.Thread(target=index.find, args=(clustered(1)[0], 3))
    other.start()
    assert inside.wait(20)
    hits = index.find(clustered(1500)[3], 3, deadline=10.0)
    go.set()
    other.join()
    assert (hits.exact, hits.matches[0].id) == (True, "v3")


def test_a_search_does_not_wait_for_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which an addition makes of thousands of vectors."""
    index, inside, go = filled(tmp_path, probed=10_000), threading.Event(), threading.Event()

    def slow(vectors: Floats) -> NDArray[np.uint64]:
        inside.set()
        assert go.wait(20)
        return np.zeros(len(vectors), dtype=np.uint64)

    monkeypatch.setattr(held, "row_sums", slow)
    other = threading.Thread(target=index.add, args=(["new"], clustered(1, seed=3)))
    other.start()
    assert inside.wait(20)
    hits = index.find(clustered(1500)[3], 3, deadline=10.0)
    go.set()
    other.join()
    assert (hits.exact, hits.matches[0].id) == (True, "v3")
    assert index.find(clustered(1, seed=3)[0], 1).matches[0].id == "new"


def test_a_writer_is_alone_and_gets_its_turn() -> None:
    """Among readers without end: nobody reads while it writes, and it need not wait for those who come later."""
    lock, done, wrong = Sharing(), threading.Event(), []
    value: Floats = np.zeros(2, dtype=np.float32)

    def read() -> None:
        while not done.is_set():
            with lock.reading():
                if value[0] != value[1]:
                    wrong.append(value.copy())

    def write() -> None:
        for _ in range(200):
            with lock.writing():
                value[0] += 1
                time.sleep(0)
                value[1] += 1

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    _start(*readers, *writers)
    _join(*writers)
    done.set()
    _join(*readers)
    assert not wrong
    assert value.tolist() == [400, 400]


def test_who_fails_lets_go() -> None:
    lock = Sharing()
    for way in (lock.reading, lock.writing, lock.reading):
        with pytest.raises(ZeroDivisionError), way():
            raise ZeroDivisionError
    with lock.writing():
        pass


def _start(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.start()


def _join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(60)
