"""LangGraph's checkpoints in ctxmem's database: the published suite, LangGraph's own saver beside ours, real graphs."""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from ctxmem import ContextManager
from ctxmem.agents.langgraph_saver import CtxMemSaver
from ctxmem.errors import InvalidInput

THREADS = ("a", "a.b", "a%", "ä")


@pytest.fixture
def saver() -> Iterator[CtxMemSaver]:
    with CtxMemSaver.from_conn_string(":memory:") as opened:
        yield opened


async def test_the_published_suite_passes() -> None:
    """Base, and the three groups that LangGraph's own savers do not have."""

    @checkpointer_test(name="CtxMemSaver")
    async def made() -> AsyncIterator[CtxMemSaver]:
        with CtxMemSaver.from_conn_string(":memory:") as opened:
            yield opened

    results = (await validate(made)).results
    assert {name: result.failures for name, result in results.items()} == {name: [] for name in results}
    assert all(result.passed for result in results.values())
    assert {"copy_thread", "delete_for_runs", "prune"} < set(results)
    assert sum(result.tests_passed for result in results.values()) >= 81


class Both:
    """The same calls of two savers."""

    def __init__(self, ours: CtxMemSaver) -> None:
        self.savers = (ours, InMemorySaver())
        self.places: list[dict[str, Any]] = []
        self.rng = random.Random(7)
        self.step = 0

    def put(self) -> None:
        """A checkpoint after any that is there, which changes some channels and drops others."""
        self.step += 1
        thread, namespace = self.rng.choice(THREADS), self.rng.choice(["", "sub", "sub|x"])
        before = [p for p in self.places if (p["thread_id"], p["checkpoint_ns"]) == (thread, namespace)]
        parent = self.rng.choice(before)["checkpoint_id"] if before and self.rng.random() < 0.9 else None
        place = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": parent}
        values = {name: self.rng.choice([None, 1, "x" * 300, ["é", b"\0"]]) for name in self.rng.sample("pqrs", 3)}
        versions = {name: f"{self.step:032}.{name}" for name in values}
        checkpoint = empty_checkpoint() | {"channel_values": values, "channel_versions": versions}
        told = {"source": "loop", "step": self.step % 5, "writes": None, "parents": {}}
        made = [
            dict(saver.put({"configurable": place}, checkpoint, told, versions)["configurable"])  # type: ignore[arg-type]  # a plain dict stands for the typed one
            for saver in self.savers
        ]
        assert made[0] == made[1]
        self.places.append(made[0])

    def put_writes(self) -> None:
        """The same task may write twice; the first stays, unless it is an error."""
        place = {"configurable": self.rng.choice(self.places)}
        writes = [(self.rng.choice(["p", "q", "__error__"]), self.rng.random()) for _ in range(self.rng.randrange(3))]
        task, path = self.rng.choice([("t1", "~a"), ("t2", "~b")])
        for saver in self.savers:
            saver.put_writes(place, writes, task, path)

    def delete(self) -> None:
        """A whole thread."""
        thread = self.rng.choice(THREADS)
        for saver in self.savers:
            saver.delete_thread(thread)
        self.places = [place for place in self.places if place["thread_id"] != thread]

    def compare(self) -> None:
        """One checkpoint by name, the newest, and a page."""
        place = self.rng.choice(self.places)
        newest = {name: place[name] for name in ("thread_id", "checkpoint_ns")}
        for named in (place, newest):
            got = [saver.get_tuple({"configurable": named}) for saver in self.savers]
            assert plain(got[0]) == plain(got[1])
        asked = self.rng.choice([None, newest, {"thread_id": place["thread_id"]}])
        options: dict[str, Any] = {"filter": self.rng.choice([None, {"step": 2}]), "limit": self.rng.choice([None, 3])}
        options["before"] = self.rng.choice([None, {"configurable": place}])
        if asked is None or "checkpoint_ns" not in asked:
            options["limit"] = None  # theirs goes thread by thread, so that its limit takes others
        config = {"configurable": asked} if asked else None
        lists = [[plain(one) for one in saver.list(config, **options)] for saver in self.savers]
        if options["limit"] is None:
            lists = [sorted(found, key=repr) for found in lists]
        assert lists[0] == lists[1]


def plain(one: CheckpointTuple | None) -> Any:
    """Without the parent's missing namespace and such: what a graph reads."""
    if one is None:
        return None
    parent = one.parent_config["configurable"]["checkpoint_id"] if one.parent_config else None
    return one.config["configurable"], one.checkpoint, one.metadata, parent, one.pending_writes


@pytest.mark.parametrize("calls", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_random_calls_give_what_langgraphs_own_saver_gives(saver: CtxMemSaver, calls: int) -> None:
    """Puts on branches, writes twice, deletes, gets and lists."""
    both = Both(saver)
    both.put()
    for _ in range(calls):
        work = both.rng.choices([both.put, both.put_writes, both.compare, both.delete], [6, 4, 6, 0.2])[0]
        work()
        if not both.places:
            both.put()


class Counted(TypedDict):
    said: Annotated[list[str], operator.add]


def approve(state: Counted) -> Counted:
    return {"said": [f"{len(state['said'])}: {interrupt('may I?')}"]}


def graph(saver: CtxMemSaver) -> Any:
    """Asks before it says something."""
    made = StateGraph(Counted).add_node("approve", approve).add_edge(START, "approve").add_edge("approve", END)
    return made.compile(checkpointer=saver)


def test_a_graph_goes_on_in_another_process_and_from_the_past(tmp_path: Path) -> None:
    """Stopped at a question, answered after the file was closed, answered otherwise from where it stood then."""
    thread: Any = {"configurable": {"thread_id": "t"}}
    with CtxMemSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        assert graph(saver).invoke({"said": ["hi"]}, thread)["__interrupt__"][0].value == "may I?"
    with CtxMemSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        asked = graph(saver).get_state(thread).config
        assert graph(saver).invoke(Command(resume="yes"), thread)["said"] == ["hi", "1: yes"]
        assert graph(saver).get_state(thread).values["said"] == ["hi", "1: yes"]
        past = graph(saver).get_state(asked)
        assert (past.values["said"], past.next) == (["hi"], ("approve",))


async def test_sync_and_async_are_one_saver_under_many_at_once(saver: CtxMemSaver) -> None:
    """Sixteen threads of eight turns, half of them awaited, one of them cancelled: none lost, none mixed."""
    made = StateGraph(Counted).add_node("echo", lambda state: {"said": [f"re: {state['said'][-1]}"]})
    echo = made.add_edge(START, "echo").add_edge("echo", END).compile(checkpointer=saver)

    def turns(name: str) -> list[str]:
        for n in range(8):
            done = echo.invoke({"said": [f"{name}{n}"]}, {"configurable": {"thread_id": name}})
        return list(done["said"])

    async def aturns(name: str) -> list[str]:
        for n in range(8):
            done = await echo.ainvoke({"said": [f"{name}{n}"]}, {"configurable": {"thread_id": name}})
        return list(done["said"])

    gone = asyncio.create_task(aturns("gone"))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as pool:
        threads = [loop.run_in_executor(pool, turns, f"s{n}") for n in range(8)]
        awaited = [aturns(f"a{n}") for n in range(8)]
        await asyncio.sleep(0.05)
        gone.cancel()
        said = await asyncio.gather(*threads, *awaited)
    names = [f"s{n}" for n in range(8)] + [f"a{n}" for n in range(8)]
    assert said == [[text for n in range(8) for text in (f"{name}{n}", f"re: {name}{n}")] for name in names]
    assert (await aturns("gone"))[-2:] == ["gone7", "re: gone7"]
    found = [one.checkpoint["id"] async for one in saver.alist({"configurable": {"thread_id": "a0"}})]
    assert found == sorted(found, reverse=True)


def test_a_user_is_erased_with_the_checkpoints(manager: ContextManager) -> None:
    """Known by `user_id` in the config; a thread of somebody else stays."""
    kept = CtxMemSaver(manager)
    for thread, user in (("t1", "alice"), ("t2", "bob")):
        graph(kept).invoke({"said": ["hi"]}, {"configurable": {"thread_id": thread, "user_id": user}})
    assert manager.erase_user("alice").counts["checkpoints"] == 2
    assert kept.get_tuple({"configurable": {"thread_id": "t1"}}) is None
    assert kept.get_tuple({"configurable": {"thread_id": "t2"}}) is not None


def test_an_unknown_strategy_is_refused(saver: CtxMemSaver) -> None:
    with pytest.raises(InvalidInput, match="keep_latest or delete"):
        saver.prune(["t"], strategy="some")
