"""The Agents SDK: our session beside its own, and a runner whose model calls stay in budget."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from agents import Agent, RunConfig, Runner, Session, SQLiteSession, function_tool, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesModel

from ctxmem import ContextManager
from ctxmem.agents.openai_agents import CtxMemInputFilter, CtxMemSession
from tests.service.upstream import Received, Reply, Upstream, whole
from tests.service.wires import FUNCTION, REASONING, response

set_tracing_disabled(True)
ITEMS: list[Any] = [
    {"role": "user", "content": "Wie spät? 🕐 \ud800"},
    {"type": "function_call_output", "call_id": "c1", "output": "x" * 3000},
    {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
    {"type": "hologram", "light": [1.5, None, True], "nested": {"": "'; DROP TABLE folders; --"}},
    FUNCTION,
    REASONING,
]


class TestSession:
    async def test_it_does_what_sqlite_session_does(self, tmp_path: Path) -> None:
        """Three thousand random operations on four sessions: the same answers, and the same items after reopening."""
        dice = random.Random(7)
        names = ["a", "A", "a%", "ü/é"]
        theirs = {name: SQLiteSession(name, tmp_path / "theirs.db") for name in names}
        ours = {name: CtxMemSession(name, tmp_path / "ours.db") for name in names}
        for step in range(3000):
            name = dice.choice(names)
            for call, *args in [_operation(dice, step)]:
                found = await getattr(ours[name], call)(*args)
                assert found == await getattr(theirs[name], call)(*args), (step, call, args)
            if step % 500 == 499:
                ours[name].close()
                ours[name] = CtxMemSession(name, str(tmp_path / "ours.db"))
        for name in names:
            assert await ours[name].get_items() == await theirs[name].get_items()
            ours[name].close()
            theirs[name].close()

    async def test_the_settings_cap_what_is_read(self) -> None:
        """As the SDK's own do, and a limit that is said counts first."""
        for kind in (SQLiteSession, CtxMemSession):
            session = kind("s", session_settings={"limit": 2})
            assert isinstance(session, Session)
            await session.add_items(ITEMS)
            assert await session.get_items() == ITEMS[-2:]
            assert await session.get_items(4) == ITEMS[-4:]
            session.close()

    async def test_concurrent_batches_never_mix_and_none_is_lost(self, tmp_path: Path) -> None:
        """Ten tasks over two sessions on the file; then everybody pops at once and each item is had once."""
        both = [CtxMemSession("s", tmp_path / "log.db") for _ in range(2)]

        async def add(task: int) -> None:
            for batch in range(10):
                await both[task % 2].add_items([{"role": "user", "content": f"{task}-{batch}-{i}"} for i in range(3)])

        await asyncio.gather(*(add(task) for task in range(10)))
        said = [item["content"] for item in await both[0].get_items()]
        assert len(said) == 300
        for at in range(0, 300, 3):
            assert [each.rsplit("-", 1) for each in said[at : at + 3]] == [
                [said[at][:-2], str(i)] for i in range(3)
            ]  # fmt: skip
        popped = await asyncio.gather(*(both[i % 2].pop_item() for i in range(40)))
        assert sorted(item["content"] for item in popped) == sorted(said[-40:])
        for session in both:
            session.close()

    async def test_a_cancelled_write_is_over_when_its_caller_knows(self, manager: ContextManager) -> None:
        """The batch is there as a whole."""
        session = CtxMemSession("s", manager=manager, user="alice")
        task = asyncio.create_task(session.add_items(ITEMS))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await session.get_items() in ([], ITEMS)
        manager.erase_user("alice")
        assert await session.get_items() == []


def _operation(dice: random.Random, step: int) -> tuple[Any, ...]:
    kind = dice.choices(["add_items", "pop_item", "get_items", "clear_session"], [6, 5, 6, 0.1])[0]
    if kind == "add_items":
        return kind, [{**dice.choice(ITEMS), "step": step} for _ in range(dice.randrange(4))]
    return (kind, dice.choice([None, -1, 0, 1, 3, 10_000])) if kind == "get_items" else (kind,)


@pytest.fixture
async def model(upstream: Upstream) -> AsyncIterator[OpenAIResponsesModel]:
    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0) as client:
        yield OpenAIResponsesModel("gpt-4o", client)


@function_tool
def clock(n: int) -> str:
    """Tell the time, at length."""
    return f"call {n}: " + "it is half past two and all is well. " * 20


def agentic(request: Received) -> Reply:
    """Ask for two tools at once, until their outputs are there; refuse torn exchanges."""
    items = request.json["input"]
    made = {item["call_id"] for item in items if item.get("type") == "function_call"}
    answered = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
    if made != answered:
        return whole({"error": {"message": f"torn: {made ^ answered}", "type": "invalid_request_error"}}, 400)
    if items[-1].get("type") == "function_call_output":
        message = {"type": "output_text", "text": "Half past two.", "annotations": []}
        said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [message]}
        return whole(response(said))
    n = int.from_bytes(sha256(request.body).digest()[:4])
    calls = [{**FUNCTION, "id": f"fc_{n}_{i}", "call_id": f"c{n}_{i}", "arguments": f'{{"n": {i}}}'} for i in (1, 2)]
    return whole(response(*calls))


class TestFilter:
    async def test_a_run_stays_in_budget_and_the_session_keeps_all(
        self, upstream: Upstream, manager: ContextManager, model: OpenAIResponsesModel
    ) -> None:
        """Twenty turns with two parallel calls each: no torn pair is sent, every receipt fits, nothing is lost."""
        upstream.answer = agentic
        agent = Agent("A", instructions="Be brief.", model=model, tools=[clock])
        config = RunConfig(call_model_input_filter=CtxMemInputFilter(manager, budget=1200, session="log"))
        session = CtxMemSession("s", manager=manager)
        for turn in range(20):
            done = await Runner.run(agent, f"What time is it, turn {turn}?", session=session, run_config=config)
            assert done.final_output == "Half past two."
        assert len(await session.get_items()) == 20 * 6
        requests = manager.engine.store.requests("default", session_id="log")
        assert len(requests) == 40
        assert all(one.tokens <= one.limit == 1200 for one in requests)
        assert len(upstream.last.json["input"]) < 60
        assert upstream.last.json["instructions"] == "Be brief."
        receipt = manager.receipt(requests[-1].id)
        first = next(item for item in receipt.items if item.decision == "dropped")
        assert manager.restore(first.item_id)["content"] == "What time is it, turn 0?"

    async def test_what_fits_goes_as_it_came(
        self, upstream: Upstream, manager: ContextManager, model: OpenAIResponsesModel
    ) -> None:
        """The request's body is that of a run without us."""
        upstream.answer = agentic
        agent = Agent("A", instructions="Be brief.", model=model, tools=[clock])
        for config in (RunConfig(), RunConfig(call_model_input_filter=CtxMemInputFilter(manager, budget=50_000))):
            await Runner.run(agent, "What time is it?", run_config=config)
        bodies = [json.loads(one.body) for one in upstream.received]
        assert len(bodies) == 4
        assert bodies[:2] == bodies[2:]
