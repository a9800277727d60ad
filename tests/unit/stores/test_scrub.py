"""No erased word stays in SQLite's files: not in the unused space of its pages, not in its write-ahead log."""

from __future__ import annotations

import logging
import random
import sqlite3
from pathlib import Path

import pytest

from ctxmem.memory import Source
from ctxmem.stores import engine, scrub
from ctxmem.stores.sql import SqlStore
from tests.contract.test_memories import added, memory
from tests.databases import database

NAMES = ("alice", "bob")


def fill(store: SqlStore, seed: int, number: int = 400) -> None:
    """Memories of two users that come mixed and in many sizes, so that pages split and rows are moved."""
    source = random.Random(seed)
    waiting = {name: [] for name in NAMES}
    for _ in range(number):
        user = source.choice(NAMES)
        word = f"word-of-{user}-{source.randrange(10**6):06d}-{'x' * source.choice([0, 10, 50, 200])}"
        rest = {"id": f"mem_{source.randbytes(8).hex()}", "sources": (Source(word, 0, 1, word, "ab"),)}
        waiting[user].append(memory(word, user=user, topic=word, **rest))
        if len(waiting[user]) == 20:
            store.memories.apply("t", added(*waiting[user], user=user)).result()
            waiting[user].clear()


def count(folder: Path, word: bytes) -> int:
    """How often the word stands in the folder's files."""
    return sum(path.read_bytes().count(word) for path in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    opened = SqlStore(database(tmp_path / "log.db"))
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", [2, 3, 4, 6])
def test_rows_that_were_moved_leave_nothing(store: SqlStore, tmp_path: Path, seed: int) -> None:
    """Other users' rows stay."""
    fill(store, seed)
    assert count(tmp_path, b"word-of-alice")
    theirs = store.memories.version("t", "bob")
    store.erase_user("t", "alice")
    assert count(tmp_path, b"word-of-alice") == 0
    assert count(tmp_path, b"word-of-bob")
    assert store.memories.version("t", "bob") == theirs


def test_deleting_alone_would_leave_some(store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why the file is written anew; one that is too large for that is said so in the log."""
    monkeypatch.setattr(scrub, "MOST_BYTES", 0)
    fill(store, 3)
    store.erase_user("t", "alice")
    assert count(tmp_path, b"word-of-alice") > 0


def test_what_was_not_done_is_logged(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that is too large, and a log that somebody is reading; the rows are gone all the same."""
    monkeypatch.setattr(scrub, "MOST_BYTES", 0)
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)
    quick = SqlStore(f"sqlite:///{tmp_path}/log.db")
    fill(quick, 0)
    reader = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM memories").fetchone()
    with caplog.at_level(logging.WARNING, logger="ctxmem.stores"):
        assert quick.erase_user("t", "alice").counts["memories"] > 0
    reader.close()
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "VACUUM" in told
    assert "write-ahead log" in told
    quick.close()


def test_an_erasure_while_another_process_writes_is_done(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file cannot be written anew then, which is logged, and the next erasure does it."""
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)
    quick = SqlStore(f"sqlite:///{tmp_path}/log.db")
    fill(quick, 3)
    writer = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    done = quick._done

    def then_lock(work):
        result = done(work)
        writer.execute("BEGIN IMMEDIATE")
        return result

    monkeypatch.setattr(quick, "_done", then_lock)
    with caplog.at_level(logging.WARNING, logger="ctxmem.stores"):
        quick.erase_user("t", "alice")
    assert "unused space" in caplog.text
    writer.execute("ROLLBACK")
    writer.close()
    monkeypatch.undo()
    quick.erase_user("t", "nobody")
    assert count(tmp_path, b"word-of-alice") == 0
    quick.close()
