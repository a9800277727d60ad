"""The account of what was indexed: LangChain's in-memory class beside ours, and its own `index()` on both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, RecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from ctxmem import ContextManager
from ctxmem.agents.langchain_records import CtxMemRecordManager
from ctxmem.agents.langchain_vectors import CtxMemVectorStore
from ctxmem.errors import InvalidInput

KEYS = ["a", "ab", "a/b", "A", "%", "_", "é", "'; --"]
GROUPS = [None, "one", "two", ""]


@pytest.fixture
def manager() -> Iterator[ContextManager]:
    made = ContextManager("sqlite://")
    yield made
    made.close()


def test_it_is_langchains_own(manager: ContextManager) -> None:
    """2,000 operations over few keys; the times of both are equal, so that both may be asked for them."""
    rng, theirs = random.Random(4), InMemoryRecordManager("n")
    ours = CtxMemRecordManager("n", manager=manager)
    clock = Clock()
    ours.get_time = theirs.get_time = clock.now  # type: ignore[method-assign]
    for _ in range(2000):
        clock.time += 1
        some = rng.choices(KEYS, k=rng.randrange(4))
        match rng.randrange(4):
            case 0:
                groups = rng.choice([None, [rng.choice(GROUPS) for _ in some]])
                for each in (ours, theirs):
                    each.update(some, group_ids=groups, time_at_least=rng.choice([None, 1.0]))
            case 1:
                for each in (ours, theirs):
                    each.delete_keys(some)
            case 2:
                assert ours.exists(some) == theirs.exists(some)
            case _:
                within = {"before": clock.some(rng), "after": clock.some(rng)}
                asked = {**within, "group_ids": rng.choice([None, ["one"], ["one", "two"]])}
                expected = theirs.list_keys(**asked)
                assert sorted(ours.list_keys(**asked)) == sorted(expected)
                first = ours.list_keys(**asked, limit=2)
                assert first == ours.list_keys(**asked)[:2]
                assert len(first) == min(2, len(expected))


class Clock:
    """Time that goes on by calls."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def some(self, rng: random.Random) -> float | None:
        return rng.choice([None, float(rng.randrange(1, int(self.time) + 2))])


def corpus(rng: random.Random) -> list[Document]:
    """Some pages of a few sources, each with a few versions."""
    return [
        Document(page_content=f"{source} page {page}, version {rng.randrange(2)}", metadata={"source": source})
        for source in rng.sample(["one.md", "two.md", "three.md"], rng.randrange(1, 4))
        for page in range(rng.randrange(1, 4))
    ]


@pytest.mark.parametrize("cleanup", ["incremental", "full", "scoped_full", None])
@pytest.mark.parametrize("seed", range(3))
def test_index_ends_in_the_same_documents(manager: ContextManager, cleanup: str | None, seed: int) -> None:
    """Ten rounds of changed, new and vanished pages, each with LangChain's own count of what was done."""
    rng, embedding = random.Random(seed), DeterministicFakeEmbedding(size=6)
    ours: tuple[RecordManager, VectorStore] = (
        CtxMemRecordManager("kb", manager=manager),
        CtxMemVectorStore(embedding, manager=manager),
    )
    reference = InMemoryVectorStore(embedding)
    theirs: tuple[RecordManager, VectorStore] = (InMemoryRecordManager("kb"), reference)
    for _ in range(10):
        documents = corpus(rng)
        done = [
            index(documents, *each, cleanup=cleanup, source_id_key="source", key_encoder="sha256")  # type: ignore[arg-type]
            for each in (ours, theirs)
        ]
        assert done[0] == done[1]
        ids = list(reference.store)
        assert ours[1].get_by_ids(ids) == theirs[1].get_by_ids(ids)
        assert len(ours[1].similarity_search("page", k=100)) == len(ids)


async def test_it_is_awaited_too(manager: ContextManager) -> None:
    """Nothing is written a second time, and what is gone is deleted."""
    records = CtxMemRecordManager("kb", manager=manager)
    store = CtxMemVectorStore(DeterministicFakeEmbedding(size=6), manager=manager)
    pages = [Document(page_content=text, metadata={"source": "a"}) for text in ("one", "two")]
    how = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    await records.acreate_schema()
    assert (await aindex(pages, records, store, **how))["num_added"] == 2  # type: ignore[arg-type]
    assert (await aindex(pages, records, store, **how))["num_skipped"] == 2  # type: ignore[arg-type]
    assert (await aindex(pages[:1], records, store, **how))["num_deleted"] == 1  # type: ignore[arg-type]
    assert len(await records.alist_keys(before=await records.aget_time() + 1)) == 1


@pytest.mark.parametrize("wrong", [{"group_ids": ["one"]}, {"time_at_least": 1e12}])
def test_a_bad_call_writes_nothing(manager: ContextManager, wrong: dict[str, object]) -> None:
    """More or fewer groups than keys, and a clock that went back."""
    records = CtxMemRecordManager("kb", manager=manager)
    with pytest.raises(InvalidInput):
        records.update(["a", "b"], **wrong)  # type: ignore[arg-type]
    assert records.list_keys() == []


def test_accounts_are_apart_and_found_again(tmp_path: Path) -> None:
    """By namespace, by database, and gone with their user."""
    first = CtxMemRecordManager("a", tmp_path / "r.db", user="ada")
    CtxMemRecordManager("b", tmp_path / "r.db").update(["other"])
    first.update(["mine"])
    first.close()
    manager = ContextManager(f"sqlite:///{tmp_path / 'r.db'}")
    again = CtxMemRecordManager("a", manager=manager)
    assert again.list_keys() == ["mine"]
    manager.erase_user("ada")
    assert again.list_keys() == []
    assert CtxMemRecordManager("b", manager=manager).exists(["other", "mine"]) == [True, False]
    manager.close()


async def test_many_callers_lose_nothing(tmp_path: Path) -> None:
    """Threads and tasks on one account, one task cancelled: every batch is there, the cancelled one whole or not."""
    records = [CtxMemRecordManager("n", tmp_path / "r.db") for _ in range(2)]
    loop = asyncio.get_running_loop()
    gone = asyncio.create_task(records[0].aupdate(["gone-0", "gone-1"]))
    with ThreadPoolExecutor(4) as pool:
        threads = [
            loop.run_in_executor(pool, lambda n=n: records[n % 2].update([f"{n}-0", f"{n}-1"])) for n in range(10)
        ]
        awaited = [records[n % 2].aupdate([f"{n}-0", f"{n}-1"]) for n in range(10, 20)]
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(*threads, *awaited, gone, return_exceptions=True)
    found = set(records[0].list_keys())
    assert {f"{n}-{part}" for n in range(20) for part in range(2)} <= found
    assert len(found & {"gone-0", "gone-1"}) in (0, 2)
    for each in records:
        each.close()
