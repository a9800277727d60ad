"""Searches of documents that are answered from the shared cache: as without it, and never older than the last write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from ctxmem.document import Filter
from ctxmem.ids import new_id
from ctxmem.ports import Cache
from ctxmem.retrieval.kept import name
from ctxmem.retrieval.library import Library, Query, Results, Source
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.redis import RedisCache
from ctxmem.stores.sql import SqlStore
from ctxmem.stores.valkey import EmbeddedValkey
from tests.databases import database
from tests.unit.retrieval.fakes import Hashing, Judge

WORDS = ("tram", "cat", "harbour", "nine", "Ada")


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(database(tmp_path / "log.db"))
    yield opened
    opened.close()


def library(sql: SqlStore, cache: Cache | None, **rest: Any) -> Library:
    """As a process has it."""
    options = {"embedder": Hashing(), "reranker": Judge("cat")} | rest
    return Library(sql.documents, cache=cache, **options)


def put(into: Library, tenant: str = "t", **texts: str) -> None:
    into.ingest(tenant, "n", [Source(text, id=id) for id, text in texts.items()])


def filled(into: Library) -> Library:
    put(into, a="the tram of Ada", b="a cat at nine", c="the harbour at nine")
    return into


def told(results: Results) -> tuple[Any, ...]:
    """All of a result but its times."""
    return results.found, results.exact, results.coverage, results.degraded, results.stats["chunks"]


def cached(results: Results) -> bool:
    return "cached" in results.stats


QUERIES = [
    Query("tram at nine", "n"),
    Query("tram at nine", "n", k=1),
    Query("tram at nine", "n", mode="dense"),
    Query("tram at nine", "n", mode="words"),
    Query("tram at nine", "n", rerank=True),
    Query("tram at nine", "n", mmr=0.3),
    Query("tram at nine", "n", also=("a cat",)),
    Query("tram at nine", "n", filter=Filter(document_ids=["a", "b"])),
    Query("tram at nine", "n", filter=Filter(user_id="x")),
    Query("tram at nine", "n", filter=Filter(session_id="x")),
    Query("tram at nine", "n", filter=Filter(since=1.0)),
    Query("tram at nine", "n", filter=Filter(until=1.0)),
    Query("tram at nine", "n", filter=Filter(metadata={"x": 1})),
    Query("tram at nine", "n", filter=Filter(metadata={"x": "1"})),
    Query("tram at nine", "n", mode="dense", vector=(1.0,) * 32),
    Query("tram at ten", "n"),
]


def test_a_name_is_a_query_s_alone() -> None:
    """Whatever two queries differ in, and whatever else decides."""
    names = {name(query, "mark", "judge") for query in QUERIES}
    assert len(names) == len(QUERIES)
    assert names.isdisjoint({name(query, *marks) for query in QUERIES for marks in (("mark", ""), ("m", "judge"))})
    one, other = (Query("x", "n", filter=Filter(document_ids=ids)) for ids in ({"a", "b"}, ["b", "a", "b"]))
    assert name(one) == name(other)


class TestSameWithAndWithout:
    def test_every_kind_of_search(self, sql: SqlStore, cache: Cache) -> None:
        """Asked first, asked again, and asked of another process; to the last bit of a score."""
        one, other, plain = filled(library(sql, cache)), library(sql, cache), library(sql, None)
        for query in QUERIES:
            expected = told(plain.search("t", query))
            found = [made.search("t", query) for made in (one, one, other)]
            assert [told(each) for each in found] == [expected] * 3
            assert [cached(each) for each in found] == [False, True, True]

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.sampled_from("+-u?"), st.sampled_from("abc"), st.sampled_from(WORDS)), max_size=12))
    def test_whatever_is_written_between(self, sql: SqlStore, steps: list[tuple[str, str, str]]) -> None:
        """Two processes add, change, delete and erase; each search sees what was acknowledged before it began."""
        tenant, cache = new_id("tenant"), MemoryCache()
        processes, plain = [library(sql, cache), library(sql, cache)], library(sql, None)
        for place, (step, id, word) in enumerate(steps):
            writer = processes[place % 2]
            if step == "+":
                put(writer, tenant, **{id: f"the {word} of {place // 3}"})
            elif step == "-":
                writer.delete(tenant, "n", [id])
            elif step == "u":
                writer.ingest(tenant, "n", [Source(word, id=id, user_id="ann")])
                sql.erase_user(tenant, "ann")
            for each in (*processes, *processes):
                query = Query(f"{word} of", "n")
                assert told(each.search(tenant, query)) == told(plain.search(tenant, query))

    def test_an_embedder_s_and_a_reranker_s_change(self, sql: SqlStore, cache: Cache) -> None:
        """Makes other results, under other names."""
        query = Query("at nine", "n", rerank=True)
        first = filled(library(sql, cache)).search("t", query)
        other = library(sql, cache, reranker=Judge("harbour"))
        other._reranker.name = "other judge"  # type: ignore[union-attr]
        found = other.search("t", query)
        assert (first.found[0].document_id, found.found[0].document_id) == ("b", "c")
        new = library(sql, cache, embedder=Hashing("hashing-2"))
        new.reembed("t", "n")
        assert not cached(new.search("t", query)) and cached(new.search("t", query))
        assert not cached(library(sql, cache, embedder=None).search("t", query))
        assert not cached(library(sql, cache, embedder=Hashing("hashing-2"), dense=0.1).search("t", query))


class TestWhatIsNotKept:
    def test_a_result_that_lacks_something(self, sql: SqlStore, cache: Cache) -> None:
        """No reranker, or vectors still to come."""
        made = filled(library(sql, cache, reranker=Judge("cat", away=True)))
        query = Query("nine", "n", rerank=True)
        assert [made.search("t", query).degraded for _ in range(2)] == [("reranker",)] * 2
        assert library(sql, cache).search("t", query).degraded == ()
        made.ingest("t", "n", [Source("at nine, too", id="d")], later=True)
        late = [made.search("t", Query("nine", "n")) for _ in range(2)]
        assert [(one.degraded, cached(one)) for one in late] == [(("embedding",), False)] * 2
        made.embed("t", "n")
        assert told(made.search("t", Query("nine", "n"))) == told(library(sql, None).search("t", Query("nine", "n")))

    def test_another_database_with_the_same_versions(self, tmp_path: Path, cache: Cache) -> None:
        """A cache that outlives its database, as when that is restored, tells nothing of it."""
        query = Query("nine", "n")
        for place in range(2):
            with closing(SqlStore(f"sqlite:///{tmp_path}/{place}.db")) as sql:
                made = library(sql, cache)
                put(made, **{f"d{place}": f"at nine and {place}"})
                found = made.search("t", query)
                assert (cached(found), [one.document_id for one in found.found]) == (False, [f"d{place}"])

    @pytest.mark.parametrize("kept", [b"{", b"[]", b"[1,2,3]", b'[[["a"]],true,1]', b'[[["a","b"]],true,1]', b"\xff"])
    def test_what_is_no_result_is_a_miss(self, sql: SqlStore, kept: bytes) -> None:
        class Broken(MemoryCache):
            def get(self, tenant: str, key: str) -> bytes:
                return kept

        made = filled(library(sql, Broken()))
        assert told(made.search("t", QUERIES[0])) == told(library(sql, None).search("t", QUERIES[0]))


def test_tenants_are_apart(sql: SqlStore, cache: Cache) -> None:
    """The same query, namespace and version; one tenant's entries go, and the other's stay."""
    made, query = library(sql, cache), Query("tram", "n")
    for tenant in ("t", "u"):
        put(made, tenant, a=f"the tram of {tenant}")
    found = {tenant: [made.search(tenant, query) for _ in range(2)] for tenant in ("t", "u")}
    for tenant, results in found.items():
        assert [cached(one) for one in results] == [False, True]
        assert {one.found[0].text for one in results} == {f"the tram of {tenant}"}
    assert cache.clear("t") == 1
    assert (cached(made.search("t", query)), cached(made.search("u", query))) == (False, True)


def test_the_server_holds_no_word_of_a_document(sql: SqlStore, valkey: EmbeddedValkey) -> None:
    """Neither its text nor the caller's id, nor the query; and what was erased is not found any more."""
    with closing(RedisCache(valkey.url)) as cache:
        made = library(sql, cache)
        made.ingest("t", "n", [Source("canary secret one", id="canary id", user_id="ann", title="canary title")])
        made.search("t", Query("canary secret", "n", rerank=True, filter=Filter(user_id="ann")))
        with Redis.from_url(valkey.url) as admin:
            kept = [(key, admin.get(key)) for key in admin.scan_iter()]
            assert len(kept) == 1 and not any(b"canary" in part for pair in kept for part in pair if part)
        sql.erase_user("t", "ann")
        assert made.search("t", Query("canary secret", "n", rerank=True, filter=Filter(user_id="ann"))).found == ()


def test_a_server_that_goes_in_the_middle_changes_nothing(sql: SqlStore, valkey: EmbeddedValkey) -> None:
    """Between the look-up and the keeping; and one that hangs, or comes back empty."""

    class Dying(RedisCache):
        def get(self, tenant: str, key: str) -> bytes | None:
            found = super().get(tenant, key)
            valkey.kill()
            return found

    plain, query = filled(library(sql, None)), QUERIES[4]
    expected = told(plain.search("t", query))
    with closing(RedisCache(valkey.url)) as cache, closing(Dying(valkey.url)) as dying:
        assert told(library(sql, cache).search("t", query)) == expected
        made = library(sql, dying)
        assert cached(made.search("t", query)) and not valkey.running()
        assert [told(one.search("t", query)) for one in (made, library(sql, cache))] == [expected] * 2
        valkey.start()
        assert told(library(sql, cache).search("t", query)) == expected


def test_searches_and_writes_at_once(sql: SqlStore, cache: Cache) -> None:
    """Four threads in two processes search while one writes: no search misses what was there before it began."""
    processes, lost, ready = [library(sql, cache), library(sql, cache)], [], threading.Event()
    written = [0]

    def ask(of: Library) -> None:
        while not ready.is_set():
            before = written[0]
            found = {one.document_id for one in of.search("t", Query("tram", "n", k=100)).found}
            lost.extend({f"d{n}" for n in range(before)} - found)

    threads = [threading.Thread(target=ask, args=(processes[n % 2],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for number in range(12):
        put(processes[number % 2], **{f"d{number}": f"tram {number}"})
        written[0] = number + 1
    ready.set()
    for thread in threads:
        thread.join()
    assert lost == []
