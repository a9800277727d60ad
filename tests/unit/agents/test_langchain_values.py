"""LangChain's own in-memory classes beside ours: the same random operations; and many callers at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from ctxmem import ContextManager
from ctxmem.agents.langchain_values import CtxMemByteStore, CtxMemCache, CtxMemChatMessageHistory
from ctxmem.agents.langchain_vectors import CtxMemVectorStore
from ctxmem.errors import InvalidInput

KEYS = ["a", "ab", "a/b", "A", "%", "_", "é", "'; --", "\x01"]


@pytest.fixture(scope="module")
def manager() -> Iterator[ContextManager]:
    made = ContextManager("sqlite://")
    yield made
    made.close()


def test_a_byte_store_is_langchains_own(manager: ContextManager) -> None:
    """2,000 operations over few keys."""
    rng, ours, theirs = random.Random(1), CtxMemByteStore(manager=manager), InMemoryByteStore()
    for number in range(2000):
        some = rng.choices(KEYS, k=rng.randrange(4))
        match rng.randrange(4):
            case 0:
                pairs = [(key, f"{number}{key}".encode()) for key in some]
                ours.mset(pairs)
                theirs.mset(pairs)
            case 1:
                ours.mdelete(some)
                theirs.mdelete(some)
            case 2:
                assert ours.mget(some) == theirs.mget(some)
            case _:
                prefix = rng.choice([None, "", *KEYS])
                assert list(ours.yield_keys(prefix=prefix)) == sorted(theirs.yield_keys(prefix=prefix))


def test_what_is_no_bytes_is_refused_and_nothing_is_written(manager: ContextManager) -> None:
    store = CtxMemByteStore(manager=manager, name="refused")
    with pytest.raises(InvalidInput):
        store.mset([("a", b"1"), ("b", "text")])  # type: ignore[list-item]
    assert list(store.yield_keys()) == []


def test_a_cache_is_langchains_own(manager: ContextManager) -> None:
    """Plain and chat generations, with calls, numbers and text of any script."""
    rng, ours, theirs = random.Random(2), CtxMemCache(manager=manager), InMemoryCache()
    call = {"name": "look", "args": {"n": 1}, "id": "c1", "type": "tool_call"}
    kept = [
        [Generation(text="für alle 🌊", generation_info={"logprobs": [-0.5]})],
        [ChatGeneration(message=AIMessage(content=[{"type": "text", "text": "a"}], tool_calls=[call], id="m"))],
        [],
    ]
    for _ in range(600):
        prompt, settings = rng.choice(KEYS), rng.choice(["", "t=0"])
        if rng.random() < 0.4:
            said = rng.choice(kept)
            ours.update(prompt, settings, said)
            theirs.update(prompt, settings, said)
        elif rng.random() < 0.02:
            ours.clear()
            theirs.clear()
        assert ours.lookup(prompt, settings) == theirs.lookup(prompt, settings)


def test_the_cache_keeps_no_prompt(tmp_path: Path) -> None:
    cache = CtxMemCache(tmp_path / "cache.db")
    cache.update("the secret harbour", "t=0", [Generation(text="ok")])
    cache.close()
    assert not any(b"secret harbour" in path.read_bytes() for path in tmp_path.iterdir())


def some_message(rng: random.Random, number: int) -> BaseMessage:
    call = {"name": "look", "args": {"é": [number]}, "id": f"c{number}", "type": "tool_call"}
    return rng.choice(
        [
            HumanMessage(content=f"{number} 🌊", name="ada"),
            AIMessage(content="", tool_calls=[call], usage_metadata=None, response_metadata={"a": 1}),
            ToolMessage(content=[{"type": "text", "text": "x"}], tool_call_id=f"c{number}", artifact={"rows": [1]}),
            SystemMessage(content="be brief", additional_kwargs={"k": None}),
        ]
    )


@pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory`")
def test_a_history_is_langchains_own(manager: ContextManager) -> None:
    """1,000 operations on three sessions; what comes back equals what was put in, field by field."""
    rng = random.Random(3)
    ours = {name: CtxMemChatMessageHistory(name, manager=manager) for name in "abc"}
    theirs = {name: InMemoryChatMessageHistory() for name in "abc"}
    for number in range(1000):
        name = rng.choice("abc")
        if rng.random() < 0.01:
            ours[name].clear()
            theirs[name].clear()
        some = [some_message(rng, number) for _ in range(rng.randrange(4))]
        ours[name].add_messages(some)
        theirs[name].add_messages(some)
        if number % 25 == 0:
            assert ours[name].messages == theirs[name].messages


def test_batches_of_many_writers_stay_whole(tmp_path: Path) -> None:
    """Eight writers on one session of one file: no message is lost and no batch is broken up."""

    def write(writer: int) -> None:
        history = CtxMemChatMessageHistory("s", tmp_path / "h.db")
        for turn in range(10):
            history.add_messages([HumanMessage(content=json.dumps([writer, turn, part])) for part in range(3)])
        history.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    history = CtxMemChatMessageHistory("s", tmp_path / "h.db")
    found = [json.loads(str(message.content)) for message in history.messages]
    history.close()
    assert len(found) == 8 * 10 * 3
    for start in range(0, len(found), 3):
        assert [one[2] for one in found[start : start + 3]] == [0, 1, 2]
        assert len({tuple(one[:2]) for one in found[start : start + 3]}) == 1


async def test_a_cancelled_caller_breaks_nothing(manager: ContextManager) -> None:
    """Sync and async calls on one history, some of them cancelled: every batch that was kept is whole."""
    history = CtxMemChatMessageHistory("cancelled", manager=manager)
    tasks = [asyncio.create_task(history.aadd_messages([HumanMessage(content=f"{n}")] * 2)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    history.add_messages([HumanMessage(content="sync")] * 2)
    await asyncio.gather(*tasks, return_exceptions=True)
    found = [message.content for message in await history.aget_messages()]
    assert found[::2] == found[1::2]
    assert "sync" in found


WORDS = ["harbour", "tram", "mill", "bread", "clock", "ferry", "night", "nine", "rye", "gate", "rope", "lamp"]


class Pair:
    """Both vector stores, and random operations on few ids."""

    def __init__(self, manager: ContextManager, seed: int) -> None:
        self.rng = random.Random(seed)
        embedding = DeterministicFakeEmbedding(size=6)
        self.ours = CtxMemVectorStore(embedding, manager=manager, namespace=f"pair{seed}")
        self.theirs = InMemoryVectorStore(embedding)

    def documents(self) -> list[Document]:
        ids = self.rng.sample("abcdefgh", self.rng.randrange(1, 4))
        return [Document(id=id, page_content=self.text(), metadata={"n": self.rng.randrange(3)}) for id in ids]

    def text(self) -> str:
        return " ".join(self.rng.sample(WORDS, self.rng.randrange(1, 5)))

    def step(self) -> None:
        match self.rng.randrange(6):
            case 0 | 1:
                some = self.documents()
                assert self.ours.add_documents(some) == self.theirs.add_documents(some)
            case 2:
                gone = self.rng.sample("abcdefgh", self.rng.randrange(3))
                self.ours.delete(gone)
                self.theirs.delete(gone)
            case 3:
                wanted = self.rng.sample("abcdefghxyz", 3)
                assert self.ours.get_by_ids(wanted) == self.theirs.get_by_ids(wanted)
            case _:
                self.search()

    def search(self) -> None:
        """The same documents with the same cosines; equal ones in any order."""
        query, k, n = self.text(), self.rng.randrange(1, 6), self.rng.randrange(4)
        wanted = {"filter": {"n": n}} if n < 3 else {}
        theirs = {"filter": lambda document: document.metadata["n"] == n} if n < 3 else {}
        got = self.ours.similarity_search_with_score(query, k, **wanted)
        expected = self.theirs.similarity_search_with_score(query, k, **theirs)
        assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=1e-5)
        least = min((score for _, score in expected), default=0.0)
        sure = {document.id for document, score in expected if score > least + 1e-5}
        assert sure <= {document.id for document, _ in got}
        assert all(document == self.theirs.get_by_ids([str(document.id)])[0] for document, _ in got)


@pytest.mark.parametrize("seed", range(3))
def test_a_vector_store_is_langchains_own(manager: ContextManager, seed: int) -> None:
    """300 operations each."""
    pair = Pair(manager, seed)
    for _ in range(300):
        pair.step()


def test_marginal_relevance_is_langchains_own(manager: ContextManager) -> None:
    pair = Pair(manager, 9)
    for store in (pair.ours, pair.theirs):
        store.add_texts(
            [f"{one} {other}" for one in WORDS[:5] for other in WORDS[5:9]], ids=[str(n) for n in range(20)]
        )
    for query in WORDS:
        ours = pair.ours.max_marginal_relevance_search(query, 4, fetch_k=12, lambda_mult=0.3)
        assert [one.id for one in ours] == [
            one.id for one in pair.theirs.max_marginal_relevance_search(query, 4, fetch_k=12, lambda_mult=0.3)
        ]


def test_a_store_is_found_again(tmp_path: Path) -> None:
    """After a restart, with its ids, texts and metadata as they came."""
    embedding = DeterministicFakeEmbedding(size=6)
    text, metadata = "  two  spaces\n\nand a\ttab ", {"deep": {"list": [1, None, "é"]}}
    first = CtxMemVectorStore.from_texts([text], embedding, [metadata], ids=["one"], db_path=tmp_path / "v.db")
    first.close()
    again = CtxMemVectorStore(embedding, tmp_path / "v.db")
    assert again.get_by_ids(["one"]) == [Document(id="one", page_content=text, metadata=metadata)]
    assert again.similarity_search("two", 1)[0].page_content == text
    again.close()


@pytest.mark.parametrize("wrong", [{"ids": ["a"]}, {"metadatas": [{"a": {1, 2}}, {}]}])
def test_a_bad_call_writes_nothing(manager: ContextManager, wrong: dict[str, object]) -> None:
    store = CtxMemVectorStore(DeterministicFakeEmbedding(size=6), manager=manager, namespace="bad")
    with pytest.raises((InvalidInput, ValueError)):
        store.add_texts(["one", "two"], **wrong)  # type: ignore[arg-type]
    assert store.similarity_search("one") == []
