"""What only a server does: it goes away and comes back, runs out of connections, lets writers race."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url

from ctxmem.errors import Conflict, InvalidInput, StoreError
from ctxmem.ids import new_id
from ctxmem.stores import engine, schema
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log
from tests.contract.servers import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    """A database with tables."""
    made = postgres.database()
    SqlStore(made).close()
    return made


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    store = SqlStore(url)
    yield Log(store, new_id("tenant"))
    store.close()


def test_those_who_make_the_tables_at_once_wait_for_each_other(postgres: PostgresServer) -> None:
    """And the tables are those of the schema."""
    fresh = postgres.database()
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda _: SqlStore(fresh), range(3)))
    with stores[0]._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    for store in stores:
        assert store.health() == {"write": "ok", "migrations": "head", "dialect": "postgresql"}
        store.close()


def test_a_server_that_restarts_is_used_again(log: Log, postgres: PostgresServer) -> None:
    """Nothing acknowledged is lost, and meanwhile every call says why it fails."""
    kept = log.say("s", "before")
    late = log.batch("s", "meanwhile")
    postgres.stop()
    try:
        with pytest.raises(StoreError):
            log.store.write(log.tenant, late).result()
        with pytest.raises(StoreError):
            log.store.session(log.tenant, "s")
        with pytest.raises(StoreError):
            log.store.health()
    finally:
        postgres.start()
    assert log.store.events(log.tenant, "s") == list(kept.events)
    assert log.say("s", "after").session.revision == 2


def test_a_restart_that_nobody_noticed_costs_no_error(log: Log, postgres: PostgresServer) -> None:
    """Connections of the old server are exchanged before they are used."""
    log.say("s", "before")
    postgres.stop()
    postgres.start()
    assert log.say("s", "after").session.revision == 2


def test_a_pool_that_is_used_up_is_a_store_error(log: Log) -> None:
    """After a second, and only until a connection is free."""
    log.say("s", "hi")
    with ExitStack() as held:
        for _ in range(2 * engine.POOL):
            held.enter_context(log.store._engine.connect())
        with pytest.raises(StoreError):
            log.store.session(log.tenant, "s")
    assert log.store.session(log.tenant, "s") is not None


def test_a_database_that_may_not_be_written_says_so(log: Log, url: str) -> None:
    """Reading works, and health tells."""
    log.say("s", "hi")
    options = {"options": "-c default_transaction_read_only=on"}
    reader = SqlStore(make_url(url).update_query_dict(options).render_as_string(hide_password=False), create=False)
    assert reader.session(log.tenant, "s") is not None
    with pytest.raises(StoreError):
        Log(reader, log.tenant).say("s", "more")
    assert "read-only" in reader.health()["write"]
    reader.close()


@pytest.mark.parametrize("name", ["\x00", "".join(chr(0x4E00 + i * 7 % 20000) for i in range(20_000))])
def test_an_id_that_postgres_cannot_hold_is_refused(log: Log, name: str) -> None:
    """NUL, or too long for an index."""
    with pytest.raises(InvalidInput):
        log.say(name, "hi")


def test_writers_of_several_stores_lose_nothing(log: Log, url: str) -> None:
    """Every write counts or conflicts."""
    stores = [SqlStore(url) for _ in range(3)]

    def write(store: SqlStore) -> int:
        own, won = Log(store, log.tenant), 0
        for i in range(20):
            try:
                own.say("shared", f"{id(store)} {i}")
            except Conflict:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(3) as pool:
        won = sum(pool.map(write, stores))
    events = log.store.events(log.tenant, "shared")
    assert [event.seq for event in events] == list(range(won))
    assert log.store.session(log.tenant, "shared").revision == won
    for store in stores:
        store.close()


def test_erasure_never_takes_content_that_another_session_brings_meanwhile(log: Log) -> None:
    """A session that is there has its artifacts, however the two ran into each other."""
    content = b"tools"
    sha256 = hashlib.sha256(content).hexdigest()

    def bring(i: int) -> None:
        log.say(f"s{i}", "hi", artifacts={sha256: content})

    bring(0)
    with ThreadPoolExecutor(2) as pool:
        for i in range(30):
            bringing = pool.submit(bring, i + 1)
            log.store.erase_session(log.tenant, f"s{i}")
            bringing.result()
            assert log.store.artifact(log.tenant, sha256) == content


def test_an_erasure_and_a_write_to_its_session_never_lock_each_other_out(log: Log) -> None:
    """Both take their locks in one order, so PostgreSQL never has to choose a victim."""
    contents = {hashlib.sha256(content).hexdigest(): content for content in (b"a", b"b")}
    with ThreadPoolExecutor(2) as pool:
        for i in range(30):
            log.say("s", "hi")
            batch = log.batch("s", "more", artifacts=contents, idempotency_key=f"k{i}")
            writing = pool.submit(lambda batch=batch: log.store.write(log.tenant, batch).exception())
            log.store.erase_session(log.tenant, "s")
            error = writing.result()
            assert error is None or "revision" in str(error)
