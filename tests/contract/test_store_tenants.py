"""Two tenants with equal ids never see each other, in any method of the port."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from ctxmem.errors import Conflict
from ctxmem.ids import new_id
from ctxmem.ports import Store
from ctxmem.records import Batch, LedgerEntry, Session
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log, request

SHA = hashlib.sha256(b"tools").hexdigest()
EVENT, REQUEST = "ev_" + "0" * 32, "rq_" + "0" * 32
CHAIN = hashlib.blake2b(b"seedhi", digest_size=16).digest()

READS: dict[str, Callable[[SqlStore, str], object]] = {
    "session": lambda store, tenant: store.session(tenant, "s"),
    "sessions": lambda store, tenant: store.sessions(tenant),
    "branch": lambda store, tenant: store.branch(tenant, "s", 0),
    "known": lambda store, tenant: store.known(tenant, [CHAIN]),
    "event": lambda store, tenant: store.event(tenant, EVENT),
    "events": lambda store, tenant: store.events(tenant, "s"),
    "history": lambda store, tenant: store.history(tenant, "s", 0),
    "events_by_id": lambda store, tenant: store.events_by_id(tenant, [EVENT]),
    "ledger": lambda store, tenant: store.ledger(tenant, "s", 0),
    "request": lambda store, tenant: store.request(tenant, REQUEST),
    "requests": lambda store, tenant: store.requests(tenant),
    "artifact": lambda store, tenant: store.artifact(tenant, SHA),
}
WRITES = {"write", "put_artifact", "erase_session", "erase_user"}


def fill(store: SqlStore, text: str = "hi") -> str:
    """A tenant with the ids that every other tenant here has."""
    log = Log(store, new_id("tenant"))
    batch = log.batch("s", text, user="alice", idempotency_key="k")
    event = replace(batch.events[0], id=EVENT)
    batch = replace(
        batch,
        events=(event,),
        entries=(LedgerEntry("s", 0, 1, EVENT, "kept"),),
        request=request("s", id=REQUEST, model=text),
        artifacts={SHA: b"tools"},
    )
    store.write(log.tenant, batch).result()
    return log.tenant


def test_every_method_of_the_port_is_tested_here() -> None:
    """A method that is added must be added to this file."""
    methods = {name for name in vars(Store) if name[0] != "_"}
    assert methods == READS.keys() | WRITES | {"health", "close"}


@pytest.mark.parametrize("method", READS)
def test_a_read_finds_nothing_of_another_tenant(store: SqlStore, method: str) -> None:
    """However well the ids are known."""
    fill(store)
    assert not READS[method](store, new_id("tenant"))


@pytest.mark.parametrize("method", READS)
def test_a_read_finds_the_tenants_own(store: SqlStore, method: str) -> None:
    """The same call by the owner is not empty, so the test above can fail."""
    assert READS[method](store, fill(store))


def test_tenants_with_equal_ids_have_their_own_rows(store: SqlStore) -> None:
    """Writing the same ids neither conflicts nor overwrites."""
    first, second = fill(store, "hi"), fill(store, "ho")
    assert store.event(first, EVENT).raw == b"hi"
    assert store.event(second, EVENT).raw == b"ho"
    assert store.request(first, REQUEST).model == "hi"


def test_a_key_used_by_another_tenant_is_free(store: SqlStore) -> None:
    """Idempotency ends at the tenant."""
    fill(store)
    own = Log(store, new_id("tenant"))
    assert own.say("t", "words", idempotency_key="k").session.id == "t"


def test_a_write_cannot_reach_another_tenants_session(store: SqlStore) -> None:
    """Its revision does not help."""
    other = fill(store)
    with pytest.raises(Conflict):
        store.write(new_id("tenant"), Batch(Session("s", revision=2), 1)).result()
    assert store.session(other, "s").revision == 1


@pytest.mark.parametrize("erase", [lambda s, t: s.erase_session(t, "s"), lambda s, t: s.erase_user(t, "alice")])
def test_erasure_ends_at_the_tenant(store: SqlStore, erase: Callable[[SqlStore, str], object]) -> None:
    """Equal sessions, users and artifacts of others stay."""
    kept, gone = fill(store), fill(store)
    erase(store, gone)
    assert all(read(store, kept) for read in READS.values())
    assert not any(read(store, gone) for read in READS.values())


def test_known_content_is_not_shared(store: SqlStore) -> None:
    """Putting content tells nothing of who else has it."""
    fill(store)
    own = new_id("tenant")
    assert store.artifact(own, SHA) is None
    assert store.put_artifact(own, b"tools") == SHA
    store.erase_session(fill(store), "s")
    assert store.artifact(own, SHA) == b"tools"
