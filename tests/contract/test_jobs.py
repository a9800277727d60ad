"""The outbox: queued with its cause or not at all, done by one worker at a time, never lost, gone with its user."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctxmem.errors import Conflict
from ctxmem.job import Claim, Job, job
from ctxmem.records import Batch, Session
from ctxmem.runner import Note, Runner
from ctxmem.stores.sql import SqlStore
from tests.databases import database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """A database for each test: workers look across tenants."""
    sqlite = request.param == "sqlite"
    opened = SqlStore(database(tmp_path / "log.db") if sqlite else request.getfixturevalue("postgres").database())
    yield opened
    opened.close()


def queued(store: SqlStore, *jobs: Job, tenant: str = "t") -> None:
    store.jobs.put(tenant, jobs).result()


class TestOutbox:
    def test_a_job_commits_with_its_cause(self, store: SqlStore):
        """Both are there."""
        work = job("index", {"n": 1}, session_id="s")
        store.write("t", Batch(Session("s", revision=1), 0, jobs=(work,))).result()
        assert store.jobs.job("t", work.id) == work

    def test_a_job_of_a_lost_write_is_not_there(self, store: SqlStore):
        """All or nothing."""
        work = job("index", {}, session_id="s")
        with pytest.raises(Conflict):
            store.write("t", Batch(Session("s", revision=8), 7, jobs=(work,))).result()
        assert store.jobs.job("t", work.id) is None

    def test_a_key_is_queued_once(self, store: SqlStore):
        """Until it is taken up: what comes then may have a new cause."""
        queued(store, job("index", {"n": 1}, key="s"), job("index", {"n": 2}, key="s"), job("other", {}, key="s"))
        queued(store, job("index", {"n": 3}, key="s"), tenant="u")
        assert [(j.kind, j.payload) for j in store.jobs.jobs("t")] == [("index", {"n": 1}), ("other", {})]
        assert len(store.jobs.jobs("u")) == 1
        while store.jobs.claim(["index"], lease=60) is not None:
            pass
        queued(store, job("index", {"n": 4}, key="s"))
        assert [j.payload for j in store.jobs.jobs("t", state="queued") if j.kind == "index"] == [{"n": 4}]

    def test_a_job_waits_for_its_time_and_its_kind(self, store: SqlStore):
        """Neither early, nor to a worker that cannot do it."""
        queued(store, job("index", {}, delay=60))
        assert store.jobs.claim(["index"], lease=60) is None
        queued(store, job("index", {"now": True}))
        assert store.jobs.claim(["other"], lease=60) is None
        claim = store.jobs.claim(["index"], lease=60)
        assert claim is not None and (claim.tenant, claim.job.payload, claim.job.attempts) == ("t", {"now": True}, 1)

    def test_nobody_else_gets_a_job_under_lease(self, store: SqlStore):
        """Eight workers, forty jobs: each once."""
        queued(store, *(job("index", {"n": n}) for n in range(40)))
        taken: list[int] = []

        def work() -> None:
            while (claim := store.jobs.claim(["index"], lease=60)) is not None:
                taken.append(claim.job.payload["n"])
                assert store.jobs.done(claim, progress={})

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while (claim := store.jobs.claim(["index"], lease=60)) is not None:
            taken.append(claim.job.payload["n"])
        assert sorted(taken) == list(range(40))

    def test_a_lease_that_ended_gives_the_job_to_the_next(self, store: SqlStore):
        """With the progress that was noted; who lost it cannot change it any more."""
        queued(store, job("index", {}))
        first = store.jobs.claim(["index"], lease=0.01)
        assert first is not None and store.jobs.keep(first, lease=0.01, progress={"at": 3})
        time.sleep(0.05)
        second = store.jobs.claim(["index"], lease=60)
        assert second is not None and (second.job.attempts, second.job.progress) == (2, {"at": 3})
        assert not store.jobs.keep(first, lease=60, progress={"at": 9})
        assert not store.jobs.done(first, progress={})
        assert not store.jobs.fail(first, "late", retry_in=None)
        assert store.jobs.done(second, progress={"at": 5})
        assert store.jobs.claim(["index"], lease=60) is None

    def test_what_is_done_is_forgotten_in_time(self, store: SqlStore):
        """What failed stays for somebody to look at."""
        queued(store, job("index", {}), job("index", {}))
        for failed in (False, True):
            claim = store.jobs.claim(["index"], lease=60)
            assert claim is not None
            if failed:
                store.jobs.fail(claim, "no", retry_in=None)
            else:
                store.jobs.done(claim, progress={})
        assert store.jobs.forget(before=time.time() - 60) == 0
        assert store.jobs.forget(before=time.time() + 1) == 1
        assert [j.state for j in store.jobs.jobs("t")] == ["failed"]

    def test_erasing_takes_the_jobs_along(self, store: SqlStore):
        """Those of a session with it, those of a user with all of theirs; another tenant's stay."""
        store.write("t", Batch(Session("s", user_id="u", revision=1), 0, jobs=(job("a", {}, session_id="s"),))).result()
        queued(store, job("b", {"secret": "word"}, user_id="u"), job("c", {}))
        queued(store, job("b", {}, user_id="u"), tenant="other")
        assert store.erase_user("t", "u").counts["jobs"] == 2
        assert ([j.kind for j in store.jobs.jobs("t")], [j.kind for j in store.jobs.jobs("other")]) == (["c"], ["b"])


class TestRunner:
    def test_it_does_what_is_due(self, store: SqlStore):
        """In order, each once, by the handler of its kind."""
        seen: list[tuple[str, int]] = []
        handlers = {
            "a": lambda claim, note: seen.append(("a", claim.job.payload["n"])),
            "b": lambda claim, note: seen.append(("b", claim.job.payload["n"])),
        }
        queued(store, job("a", {"n": 1}), job("b", {"n": 2}), job("a", {"n": 3}), job("c", {"n": 4}))
        assert Runner(store.jobs, handlers).drain() == 3
        assert seen == [("a", 1), ("b", 2), ("a", 3)]
        assert [j.state for j in store.jobs.jobs("t")] == ["done", "done", "done", "queued"]

    def test_a_handler_that_fails_is_tried_again_and_given_up_on(self, store: SqlStore):
        """With the error; after the last attempt it is failed for good."""

        def broken(claim: Claim, note: Note) -> None:
            note({"tried": claim.job.attempts})
            raise RuntimeError("no such luck")

        queued(store, job("a", {}))
        runner = Runner(store.jobs, {"a": broken}, attempts=1)
        assert runner.drain() == 1
        (failed,) = store.jobs.jobs("t")
        assert (failed.state, failed.progress) == ("failed", {"tried": 1})
        assert failed.error == "RuntimeError: no such luck"
        queued(store, job("a", {}))
        assert Runner(store.jobs, {"a": broken}, attempts=2).drain() == 1
        assert [0.5 < j.run_at - time.time() < 3 for j in store.jobs.jobs("t", state="queued")] == [True]

    def test_long_work_keeps_its_lease(self, store: SqlStore):
        """Renewed while the handler runs."""
        others: list[Claim | None] = []

        def slow(claim: Claim, note: Note) -> None:
            for _ in range(4):
                time.sleep(0.1)
                others.append(store.jobs.claim(["a"], lease=60))

        queued(store, job("a", {}))
        assert Runner(store.jobs, {"a": slow}, lease=0.25).drain() == 1
        assert others == [None] * 4

    def test_it_stops_when_told(self, store: SqlStore):
        """After the job under way."""
        stop, seen = threading.Event(), []

        def last(claim: Claim, note: Note) -> None:
            stop.set()
            seen.append(claim.job.id)

        queued(store, job("a", {}), job("a", {}))
        Runner(store.jobs, {"a": last}).run(stop)
        assert len(seen) == 1


WORKER = """
import sys, time, threading
from ctxmem.runner import Runner
from ctxmem.stores.sql import SqlStore
store = SqlStore(sys.argv[1])
def count(claim, note):
    for n in range(claim.job.progress.get("n", 0), 40):
        with open(sys.argv[2], "a") as log:
            log.write(f"{n}\\n")
        note({"n": n + 1})
        print(n, flush=True)
        time.sleep(0.02)
Runner(store.jobs, {"count": count}, lease=0.4, idle=0.05, attempts=50).run(threading.Event())
"""


def test_a_killed_worker_loses_nothing(tmp_path: Path):
    """Killed three times in the middle: the next goes on from the last note, and repeats at most the step under way."""
    url, log = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "log"
    store = SqlStore(url)
    queued(store, job("count", {}))
    for kills in range(4):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, url, str(log)], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        for _ in range(8):
            worker.stdout.readline()
        if kills == 3:
            _wait_for_done(store)
        worker.kill()
        worker.wait()
        worker.stdout.close()
    steps = [int(line) for line in log.read_text().split()]
    assert list(range(40)) == sorted(set(steps))
    assert len(steps) <= 43
    store.close()


def _wait_for_done(store: SqlStore) -> None:
    deadline = time.monotonic() + 30
    state: Mapping[str, Any] | str = ""
    while state != "done" and time.monotonic() < deadline:
        time.sleep(0.05)
        (only,) = store.jobs.jobs("t")
        state = only.state
    assert state == "done"
