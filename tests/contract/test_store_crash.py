"""`kill -9` at any moment: what was acknowledged is there, whole; what was not is there whole or not at all."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctxmem.stores.sql import SqlStore
from tests.shape.imports import ROOT

WRITER = r"""
import os, sys, threading
from ctxmem.records import LedgerEntry
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log, request

def write(name):
    for i in range(10_000):
        entry, asked = LedgerEntry(name, 0, i, "ev", "kept"), request(name)
        batch = log.say(name, f"{i}a", f"{i}b", f"{i}c", entries=(entry,), request=asked)
        line = " ".join([name, str(batch.session.revision), *(event.id for event in batch.events)])
        os.write(1, line.encode() + b"\n")  # one call, so that threads' lines do not mix

log = Log(SqlStore(sys.argv[1]), "t")
names = [f"{sys.argv[2]}-{k}" for k in range(3)]
threads = [threading.Thread(target=write, args=(name,)) for name in names]
os.write(1, b"ready\n")
for thread in threads:
    thread.start()
"""


@pytest.mark.parametrize("round", range(4))
def test_what_was_acknowledged_survives(tmp_path: Path, round: int) -> None:
    """Three threads write, the process is killed after a random number of acknowledgements, and again."""
    url, acknowledged = f"sqlite:///{tmp_path}/log.db", []
    for life in range(3):
        acknowledged += _killed(url, f"life{life}", after=random.randint(1, 80))
    store = SqlStore(url)
    for line in acknowledged:
        name, revision, *ids = line.split()
        assert store.session("t", name).revision >= int(revision)
        assert len(store.events_by_id("t", ids)) == len(ids), f"lost an acknowledged event of {line}"
    for session in store.sessions("t"):
        turns = session.revision
        assert len(store.events("t", session.id, limit=10_000)) == session.events == 3 * turns
        assert store.branch("t", session.id, 0).depth == session.events
        assert len(store.requests("t", session_id=session.id, limit=10_000)) == turns
    assert store.health()["write"] == "ok"
    store.close()


def _killed(url: str, name: str, after: int) -> list[str]:
    """Start a writer, kill it after so many acknowledgements; returns those that it got out."""
    argv = [sys.executable, "-c", WRITER, url, name]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        lines = [writer.stdout.readline() for _ in range(after)]
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [line for line in lines if line.endswith("\n")]
