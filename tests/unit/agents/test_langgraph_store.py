"""LangGraph's store in ctxmem's database: LangGraph's own store beside ours, bad input, many callers at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from ctxmem import ContextManager
from ctxmem.agents.langgraph_store import CtxMemStore
from ctxmem.errors import InvalidInput

LABELS = ["a", "A", "ab", "a%", "a_", "*", "ä", "\x01", "'; --"]
KEYS = ["k", "K", ".k", "k..", "", "%", "é\n"]


@pytest.fixture(scope="module")
def manager() -> Iterator[ContextManager]:
    made = ContextManager("sqlite://")
    yield made
    made.close()


@pytest.fixture
def store(manager: ContextManager, request: pytest.FixtureRequest) -> CtxMemStore:
    return CtxMemStore(manager, name=request.node.name)


def plain(result: Any) -> Any:
    """What a result says, without times; a search in no order, which LangGraph's own store does not promise."""
    if isinstance(result, Item):
        return result.namespace, result.key, result.value
    if result and isinstance(result[0], Item):
        return sorted(map(repr, map(plain, result)))
    return result


class Random:
    """Operations on few names, so that they meet."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def op(self) -> Any:
        return self.rng.choices([self.put, self.get, self.search, self.namespaces], [5, 3, 3, 1])[0]()

    def path(self, least: int = 1) -> tuple[str, ...]:
        return tuple(self.rng.choices(LABELS, k=self.rng.randint(least, 3)))

    def put(self) -> PutOp:
        gone = self.rng.random() < 0.25
        value = {"n": self.rng.randrange(5), "s": self.rng.choice([None, "x", True, 1.5]), "d": {"l": [1, {"e": "é"}]}}
        return PutOp(self.path(), self.rng.choice(KEYS), None if gone else value)

    def get(self) -> GetOp:
        return GetOp(self.path(), self.rng.choice(KEYS))

    def search(self) -> SearchOp:
        order = self.rng.choice(["$gt", "$gte", "$lt", "$lte", "$ne", "$eq"])
        filters = [
            None,
            {"n": {order: 2}},
            {"n": 3, "s": None},
            {"s": True},
            {"d": {"l": [1, {"e": "é"}]}},
            {"z": None},
        ]
        return SearchOp(self.path(0), self.rng.choice(filters), limit=10_000)

    def namespaces(self) -> ListNamespacesOp:
        kinds = self.rng.choices(["prefix", "suffix"], k=self.rng.randrange(3))
        conditions = tuple(MatchCondition(kind, self.path()) for kind in kinds)  # type: ignore[arg-type]  # a literal from a list
        return ListNamespacesOp(conditions, max_depth=self.rng.choice([None, 1, 2]), limit=10_000)


def with_items(theirs: InMemoryStore, op: ListNamespacesOp) -> list[tuple[str, ...]]:
    """What LangGraph's store would list if it forgot namespaces whose items are gone, as its databases do."""
    [found] = theirs.batch([op._replace(max_depth=None)])
    return sorted({one[: op.max_depth] for one in found if theirs._data.get(one)})


@pytest.mark.parametrize("calls", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_batches_give_what_langgraphs_own_store_gives(store: CtxMemStore, calls: int) -> None:
    """Several operations on the same items in one batch among them."""
    theirs, made = InMemoryStore(), Random(11)
    done = 0
    while done < calls:
        ops = [made.op() for _ in range(made.rng.choice([1, 1, 2, 5]))]
        expected = [with_items(theirs, op) if isinstance(op, ListNamespacesOp) else None for op in ops]
        wanted = [plain(one) for one in theirs.batch(ops)]
        got = [plain(one) for one in store.batch(ops)]
        assert got == [e if e is not None else w for e, w in zip(expected, wanted, strict=True)]
        done += len(ops)


def embed(texts: list[str]) -> list[list[float]]:
    """How often each letter stands in a text."""
    return [[float(text.lower().count(letter)) for letter in "abcdefghij"] for text in texts]


@pytest.mark.parametrize("fields", [["$"], ["text"], ["text", "more[*].t"]])
def test_searches_by_meaning_score_as_langgraphs_own(manager: ContextManager, fields: list[str]) -> None:
    """The best of an item's vectors counts, items without any come last."""
    rng = random.Random(5)
    ours, theirs = (
        CtxMemStore(manager, index={"dims": 10, "embed": embed, "fields": fields}, name=str(fields)),
        InMemoryStore(index={"dims": 10, "embed": embed, "fields": fields}),
    )
    for n in range(40):
        words = ["".join(rng.choices("abcdefghij", k=12)) + str(n) for _ in range(3)]
        value = {"text": words[0], "more": [{"t": word} for word in words[1:]]}
        for store in (ours, theirs):
            store.put(("docs", str(n % 3)), str(n), value, index=False if n % 10 == 0 else None)
    for prefix in (("docs",), ("docs", "1")):
        for query in ("abc", "jihg", "aaaaae"):
            found = [{i.key: i.score for i in store.search(prefix, query=query, limit=50)} for store in (ours, theirs)]
            assert found[0] == {key: score and pytest.approx(score, abs=1e-6) for key, score in found[1].items()}
            scores = [i.score for i in ours.search(prefix, query=query, limit=50)]
            assert scores == sorted(scores, key=lambda score: (score is None, -(score or 0)))
            pages = [i.key for at in range(0, 50, 7) for i in ours.search(prefix, query=query, limit=7, offset=at)]
            assert pages == [i.key for i in ours.search(prefix, query=query, limit=50)]


def test_what_was_put_last_comes_first_and_keeps_when_it_was_made(store: CtxMemStore) -> None:
    for key in ("a", "b", "a"):
        store.put(("n",), key, {"v": key})
        time.sleep(0.002)
    first, second = store.search(("n",))
    assert (first.key, second.key) == ("a", "b")
    assert first.created_at < second.created_at < first.updated_at
    assert second.created_at == second.updated_at


@pytest.mark.parametrize("bad", [("",), ("a", ""), ("a.b",), ("a\0b",), (1,)])
def test_a_bad_namespace_is_refused_in_batches_too(store: CtxMemStore, bad: Any) -> None:
    """Before anything of the batch is done."""
    for op in (PutOp(bad, "k", {}), GetOp(bad, "k"), SearchOp(bad)):
        with pytest.raises(InvalidNamespaceError):
            store.batch([PutOp(("ok",), "k", {}), op])
    assert store.search(()) == []


@pytest.mark.parametrize(
    "op",
    [
        PutOp(("a",), "k\0", {}),
        PutOp(("a",), "\ud800", {}),
        PutOp(("a",), "k", {"v": object()}),
        SearchOp(("b",), {"v": {"$in": [1]}}),
        "get",
    ],
)
def test_what_cannot_be_kept_or_asked_is_refused_whole(store: CtxMemStore, op: Any) -> None:
    """The rest of the batch is not done."""
    store.put(("b",), "k", {"v": 1})
    with pytest.raises(InvalidInput):
        store.batch([PutOp(("a",), "first", {}), op])
    assert [one.namespace for one in store.search(())] == [("b",)]


def test_items_live_as_long_as_they_are_used(store: CtxMemStore) -> None:
    """In minutes; a look may be without consequence."""
    store.put(("t",), "short", {"v": 1}, ttl=0.05 / 60)
    store.put(("t",), "used", {"v": 1}, ttl=0.4 / 60)
    store.put(("t",), "long", {"v": 1})
    for _ in range(5):
        time.sleep(0.1)
        assert store.get(("t",), "used") is not None
    store.put(("t",), "looked at", {"v": 1}, ttl=0.1 / 60)
    store.search(("t",), refresh_ttl=False)
    time.sleep(0.15)
    assert sorted(one.key for one in store.search(("t",))) == ["long", "used"]
    assert store.list_namespaces() == [("t",)]
    time.sleep(0.45)
    assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 0


async def test_many_callers_lose_nothing_and_see_whole_batches(tmp_path: Path) -> None:
    """Two stores on one file, threads and tasks, one of them cancelled: the two halves of a batch never differ."""
    both = [ContextManager(f"sqlite:///{tmp_path}/s.db") for _ in range(2)]
    stores = [CtxMemStore(manager) for manager in both]

    def batch(n: int) -> list[Any]:
        return [PutOp(("half", side), "k", {"n": n}) for side in "ab"] + [PutOp(("all",), str(n), {"n": n})]

    def put(n: int) -> None:
        stores[n % 2].batch(batch(n))
        one, two = stores[n % 2].batch([GetOp(("half", side), "k") for side in "ab"])
        assert one.value == two.value

    gone = asyncio.create_task(stores[0].abatch(batch(100)))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(6) as pool:
        threads = [loop.run_in_executor(pool, put, n) for n in range(20)]
        awaited = [stores[n % 2].abatch(batch(n)) for n in range(20, 40)]
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(*threads, *awaited)
    found = await stores[1].asearch(("all",), limit=100)
    assert {int(one.key) for one in found} >= set(range(40))
    assert not {int(one.key) for one in found} - {*range(40), 100}
    for manager in both:
        manager.close()


async def test_an_async_embedder_is_awaited(manager: ContextManager) -> None:
    async def slow(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return embed(texts)

    store = CtxMemStore(manager, index={"dims": 10, "embed": slow}, name="async")
    await store.aput(("d",), "1", {"text": "aaa"})
    await store.aput(("d",), "2", {"text": "bbb"})
    assert [one.key for one in await store.asearch(("d",), query="b", limit=1)] == ["2"]


def test_a_users_store_is_erased_and_another_tenants_is_not_seen(tmp_path: Path) -> None:
    """Opened as LangGraph's own are, too."""
    with CtxMemStore.from_conn_string(str(tmp_path / "s.db"), index={"dims": 10, "embed": embed}) as opened:
        opened.setup()
        opened.put(("d",), "k", {"text": "a"})
    manager = ContextManager(f"sqlite:///{tmp_path}/s.db")
    assert CtxMemStore(manager.for_tenant("other")).get(("d",), "k") is None
    assert CtxMemStore(manager).get(("d",), "k") is not None
    hers = CtxMemStore(manager, name="alice", user="alice")
    hers.put(("d",), "k", {})
    manager.erase_user("alice")
    assert hers.get(("d",), "k") is None
    assert CtxMemStore(manager).get(("d",), "k") is not None
    manager.close()
