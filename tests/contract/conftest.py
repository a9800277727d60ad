"""Databases and caches that the contract suites run over, and a way to write a log by hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from ctxmem.ids import new_id
from ctxmem.ports import Cache
from ctxmem.records import Batch, Branch, Event, LedgerEntry, RequestRecord, Session
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.redis import RedisCache
from ctxmem.stores.sql import SqlStore
from ctxmem.stores.valkey import EmbeddedValkey
from tests.contract.servers import PostgresServer, find_initdb


@dataclass(frozen=True)
class Log:
    """Writes a conversation the way a manager would, one batch at a time."""

    store: SqlStore
    tenant: str

    def say(self, session_id: str, *texts: str, branch: int = 0, user: str = "", **rest: Any) -> Batch:
        """Append one event for each text and wait; `rest` are further fields of the batch."""
        return self.store.write(self.tenant, self.batch(session_id, *texts, branch=branch, user=user, **rest)).result()

    def batch(self, session_id: str, *texts: str, branch: int = 0, user: str = "", **rest: Any) -> Batch:
        """The batch that appends one event for each text to a branch, which may be new."""
        head = self.store.session(self.tenant, session_id) or Session(session_id, user)
        tip = self.store.branch(self.tenant, session_id, branch) or Branch(session_id, branch)
        events = []
        for place, text in enumerate(texts):
            events.append(_event(head, tip, place, text))
            tip = replace(tip, tip_id=events[-1].id, tip_chain=events[-1].chain, depth=tip.depth + 1)
        moved = replace(
            head, revision=head.revision + 1, events=head.events + len(events), turn=head.turn + 1, branch=branch
        )
        return Batch(moved, head.revision, branch=tip, events=tuple(events), **rest)

    def fork(self, session_id: str, parent: int, depth: int, turn: int) -> int:
        """Open a branch that shares `depth` events with its parent; returns its number."""
        head = self.store.session(self.tenant, session_id)
        assert head is not None
        shared = self.store.history(self.tenant, session_id, parent, stop=depth)
        chain = shared[-1].chain if shared else b"seed"
        tip = Branch(session_id, head.branches, parent, depth, turn, shared[-1].id if shared else None, chain, depth)
        moved = replace(head, revision=head.revision + 1, branches=head.branches + 1)
        self.store.write(self.tenant, Batch(moved, head.revision, branch=tip)).result()
        return tip.number

    def book(self, session_id: str, *entries: LedgerEntry) -> None:
        """Append ledger entries."""
        head = self.store.session(self.tenant, session_id)
        assert head is not None
        moved = replace(head, revision=head.revision + 1)
        self.store.write(self.tenant, Batch(moved, head.revision, entries=entries)).result()


def _event(head: Session, tip: Branch, place: int, text: str) -> Event:
    raw = text.encode()
    chain = hashlib.blake2b((tip.tip_chain or b"seed") + raw, digest_size=16).digest()
    seq = head.events + place
    return Event(
        new_id("ev"), head.id, tip.number, seq, tip.depth, tip.tip_id, chain, "user", raw, "client", None, time.time()
    )


def request(session_id: str, **changed: Any) -> RequestRecord:
    """A request with every field set."""
    whole = RequestRecord(
        id=new_id("rq"),
        session_id=session_id,
        branch=0,
        turn=1,
        depth=1,
        epoch=2,
        model="m",
        exact=False,
        mode="on",
        policy="balanced",
        limit=2**40,
        reserve=10,
        tokens=5,
        parts={"system": 2, "query": 3},
        stable_prefix=2,
        action="pass",
        reason="nothing to do",
        rendered_sha="ab",
        timings={"count": 0.5},
        at=1700000000.123,
    )
    return replace(whole, **changed)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A throwaway PostgreSQL server."""
    initdb = find_initdb()
    if initdb is None:
        pytest.skip("no PostgreSQL here: initdb is neither in /usr/lib/postgresql nor on PATH")
    with PostgresServer(initdb) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """One store for a module; tests keep apart by tenant."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/log.db"
    else:
        url = request.getfixturevalue("postgres").database()
    opened = SqlStore(url)
    yield opened
    opened.close()


@pytest.fixture
def log(store: SqlStore) -> Log:
    """A tenant's empty log."""
    return Log(store, new_id("tenant"))


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A running server."""
    with TemporaryDirectory(prefix="ctxmem-") as folder:
        server = EmbeddedValkey(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    """Both caches, empty."""
    if request.param == "memory":
        yield MemoryCache()
        return
    shared = RedisCache(request.getfixturevalue("valkey").url)
    yield shared
    shared.close()
