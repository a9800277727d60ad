"""Disks that are full, files that are damaged, databases that others hold: clear errors, and work goes on after."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxmem.errors import Conflict, StoreError, StoreFull
from ctxmem.records import Batch, Session
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
from tests.shape.imports import ROOT

LARGE = "x" * 200_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    """A log in a file of its own."""
    store = SqlStore(f"sqlite:///{path}")
    yield Log(store, "t")
    store.close()


class TestDiskFull:
    def test_a_full_database_says_so_and_recovers(self, log: Log) -> None:
        """No acknowledged event is lost, and writing works at once: the failed connection took the limit with it."""
        kept = log.say("s", "before")
        _on_the_writer(log, "PRAGMA max_page_count=1")
        with pytest.raises(StoreFull):
            log.say("s", LARGE)
        assert log.store.events("t", "s") == list(kept.events)
        log.say("s", LARGE)
        assert len(log.store.events("t", "s")) == 2

    def test_neighbours_of_the_write_that_filled_it_are_told_too(self, log: Log) -> None:
        """A future never stays open, and never succeeds without being on the disk."""
        log.say("s", "before")
        _on_the_writer(log, "PRAGMA max_page_count=1")
        futures = [log.store.write("t", log.batch(f"s{i}", LARGE)) for i in range(5)]
        errors = [future.exception(10) for future in futures]
        assert all(isinstance(error, StoreFull) for error in errors[:1])
        assert len(log.store.sessions("t")) == 1 + errors.count(None)

    def test_a_file_that_may_not_grow_fails_writes_and_not_reads(self, path: Path) -> None:
        """As with a quota: the process has a limit on the size of its files."""
        script = """
import resource, signal, sys
from ctxmem.errors import StoreError
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
log = Log(SqlStore(sys.argv[1]), "t")
log.say("s", "before")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    log.say("s", "x" * 300_000)
except StoreError as error:
    print("refused")
print(len(log.store.events("t", "s")), log.store.health()["migrations"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.say("s", "x" * 300_000)
print(len(log.store.events("t", "s")))
log.store.close()
"""
        assert _python(script, f"sqlite:///{path}").split() == ["refused", "1", "head", "2"]


def test_a_database_that_may_not_be_written_is_still_read(log: Log) -> None:
    """And written again as soon as it may."""
    kept = log.say("s", "before")
    _on_the_writer(log, "PRAGMA query_only=ON")
    with pytest.raises(StoreError, match="readonly"):
        log.say("s", "meanwhile")
    assert log.store.events("t", "s") == list(kept.events)
    assert log.say("s", "after").session.revision == 2


class TestDamage:
    def test_a_file_that_is_no_database_is_named(self, path: Path) -> None:
        """At the start, not at the first request."""
        path.write_bytes(b"this is not a database" * 100)
        with pytest.raises(StoreError, match="damaged"):
            SqlStore(f"sqlite:///{path}")

    def test_a_truncated_file_is_named(self, log: Log, path: Path) -> None:
        """Half a database is none."""
        for i in range(20):
            log.say(f"s{i}", LARGE)
        log.store.close()
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(StoreError, match="damaged"):
            SqlStore(f"sqlite:///{path}")

    def test_an_event_whose_bytes_changed_is_not_passed_off_as_the_original(self, log: Log, path: Path) -> None:
        """Restoring checks the hash."""
        event = log.say("s", "the original").events[0]
        with sqlite3.connect(path) as direct:
            direct.execute("UPDATE events SET raw = ?", [b"an imitation"])
        direct.close()
        with pytest.raises(StoreError, match="damaged"):
            log.store.event("t", event.id)

    @pytest.mark.parametrize("content", [b"other", b"\x78\x9c\x00"], ids=["exchanged", "cut"])
    def test_an_artifact_whose_bytes_changed_is_refused(self, log: Log, path: Path, content: bytes) -> None:
        """Whether it still unpacks or not."""
        sha256 = log.store.put_artifact("t", b"long " * 1000)
        with sqlite3.connect(path) as direct:
            direct.execute("UPDATE artifacts SET content = ?, codec = iif(? = x'789c00', 'zlib', 'raw')", [content] * 2)
        direct.close()
        with pytest.raises(StoreError, match="damaged"):
            log.store.artifact("t", sha256)


class TestOthers:
    def test_a_lock_that_is_never_given_back_fails_the_write(self, log: Log, path: Path) -> None:
        """After the busy time-out; reading goes on, and so does writing once the lock is free."""
        log.say("s", "before")
        _on_the_writer(log, "PRAGMA busy_timeout=50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            log.say("s", "meanwhile")
        assert len(log.store.events("t", "s")) == 1
        other.execute("ROLLBACK")
        other.close()
        assert log.say("s", "after").session.revision == 2

    def test_two_stores_on_one_file_see_each_other(self, log: Log, path: Path) -> None:
        """The second writer of a revision gets a conflict, whichever store it came through."""
        other = Log(SqlStore(f"sqlite:///{path}"), "t")
        late = other.batch("s", "late")
        log.say("s", "first")
        with pytest.raises(Conflict):
            other.store.write("t", late).result()
        assert other.say("s", "second").session == log.store.session("t", "s")
        other.store.close()

    def test_two_processes_share_a_file(self, path: Path) -> None:
        """Both create it at once, both write; every write either counts or conflicts."""
        script = """
import json, sys
from ctxmem.errors import Conflict
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
log, won = Log(SqlStore(sys.argv[1]), "t"), []
for i in range(60):
    try:
        won += [event.id for event in log.say("shared", f"{sys.argv[2]} {i}").events]
    except Conflict:
        pass
print(json.dumps(won))
log.store.close()
"""
        with ThreadPoolExecutor(2) as pool:
            outputs = list(pool.map(lambda name: _python(script, f"sqlite:///{path}", name), "ab"))
        won = [event_id for output in outputs for event_id in json.loads(output)]
        store = SqlStore(f"sqlite:///{path}")
        events = store.events("t", "shared")
        assert sorted(event.id for event in events) == sorted(won)
        assert [event.seq for event in events] == list(range(len(events)))
        assert store.session("t", "shared").revision == len(won)
        store.close()

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        """With its path."""
        with pytest.raises(StoreError, match="nowhere"):
            SqlStore(f"sqlite:///{tmp_path}/nowhere/log.db")


class TestClosing:
    def test_closing_commits_what_is_queued(self, path: Path) -> None:
        """Every future resolves, and every write is there."""
        store = SqlStore(f"sqlite:///{path}")
        futures = [store.write("t", Batch(Session(f"s{i}", revision=1), 0)) for i in range(200)]
        store.close()
        assert all(future.done() and future.exception() is None for future in futures)
        again = SqlStore(f"sqlite:///{path}")
        assert len(again.sessions("t", limit=1000)) == 200
        again.close()

    def test_a_closed_store_refuses_writes(self, path: Path) -> None:
        """Instead of queueing them for nobody."""
        store = SqlStore(f"sqlite:///{path}")
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.write("t", Batch(Session("s", revision=1), 0))


def _on_the_writer(log: Log, pragma: str) -> None:
    """Run a pragma on the connection that writes; it holds for that connection only."""
    connection = log.store._commits._connection
    assert connection is not None
    connection.exec_driver_sql(pragma)


def _python(script: str, *arguments: str) -> str:
    """What a Python process prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
