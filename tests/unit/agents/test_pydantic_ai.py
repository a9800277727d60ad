"""PydanticAI: agents whose requests stay in budget, and our conversation store beside its own in memory."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationStore, InMemoryConversationStore
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from ctxmem import ContextManager
from ctxmem.agents.pydantic_ai import CtxMemCapability
from ctxmem.agents.pydantic_ai_store import CtxMemConversationStore


def torn(messages: list[ModelMessage]) -> set[str]:
    """Calls without a result and results without a call."""
    parts = [part for message in messages for part in message.parts]
    made = {part.tool_call_id for part in parts if isinstance(part, ToolCallPart)}
    return made ^ {part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)}


class TestCapability:
    async def test_a_run_stays_in_budget_and_the_history_keeps_all(self, manager: ContextManager) -> None:
        """Twenty turns with two parallel calls each: no torn pair is sent, every receipt fits."""
        sent: list[list[ModelMessage]] = []

        def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            sent.append(list(messages))
            if isinstance(messages[-1].parts[-1], ToolReturnPart):
                return ModelResponse(parts=[ThinkingPart("Hm.", signature="c2ln"), TextPart("Half past two.")])
            return ModelResponse(parts=[ToolCallPart("clock", {"n": n}) for n in (1, 2)])

        agent = Agent(
            FunctionModel(scripted),
            instructions="Be brief.",
            capabilities=[CtxMemCapability(manager, budget=1200, session="log")],
        )

        @agent.tool_plain
        def clock(n: int) -> str:
            """Tell the time, at length."""
            return f"call {n}: " + "it is half past two and all is well. " * 20

        history: list[ModelMessage] = []
        for turn in range(20):
            done = await agent.run(f"What time is it, turn {turn}?", message_history=history)
            assert done.output == "Half past two."
            history = done.all_messages()
        assert len(history) == 20 * 4
        assert not torn(history)
        assert all(not torn(messages) for messages in sent)
        assert len(sent[-1]) < 40
        requests = manager.engine.store.requests("default", session_id="log")
        assert len(requests) == 40
        assert all(one.tokens <= one.limit == 1200 for one in requests)
        dropped = next(i for i in manager.receipt(requests[-1].id).items if i.decision == "dropped")
        assert manager.restore(dropped.item_id)["content"] == "What time is it, turn 0?"

    async def test_what_fits_goes_as_it_came(self, manager: ContextManager) -> None:
        """The very objects of the run, many parts and foreign content included."""
        history: list[ModelMessage] = [
            ModelRequest(parts=[UserPromptPart(["Look:", BinaryContent(b"\x89PNG", media_type="image/png")])]),
            ModelResponse(parts=[TextPart("A dot.")]),
            ModelRequest(parts=[UserPromptPart("one"), UserPromptPart("two"), UserPromptPart("")]),
            ModelResponse(parts=[TextPart("Yes."), ThinkingPart("Hm.")]),
        ]
        seen: list[list[ModelMessage]] = []

        def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            seen.append(list(messages))
            return ModelResponse(parts=[TextPart("Done.")])

        for capabilities in ([], [CtxMemCapability(manager, budget=50_000)]):
            agent = Agent(FunctionModel(scripted), instructions="Be brief.", capabilities=capabilities)
            await agent.run("And?", message_history=list(history))
        bare, ours = seen
        assert [message.parts for message in ours[:-1]] == [message.parts for message in bare[:-1]]
        assert str(ours[-1].parts[0].content) == str(bare[-1].parts[0].content)


class TestStore:
    async def test_it_does_what_the_store_in_memory_does(self, tmp_path: Path) -> None:
        """A thousand random saves, loads, branches, forks and deletes: the same answers and the same conflicts."""
        dice = random.Random(5)
        ours = CtxMemConversationStore(tmp_path / "log.db")
        both: tuple[ConversationStore, ...] = (InMemoryConversationStore(), ours)
        held: dict[str, list[Conversation]] = {}
        for step in range(1000):
            name = dice.choice("abcd")
            act = dice.choices(["save", "load", "branch", "fork", "delete", "list"], [8, 4, 2, 2, 1, 1])[0]
            at, new, scope = dice.randrange(8), dice.choice("abcdef"), dice.choice([None, None, "x"])
            found = []
            for which, store in enumerate(both):
                mine = held.setdefault(name, [Conversation(conversation_id=name) for _ in both])
                found.append(await _acted(store, act, (mine, which), (name, at, new, scope, step)))
            assert found[0] == found[1], (step, act)
        assert len(await ours.list_conversations()) >= 2
        ours.close()

    async def test_no_save_is_lost(self, tmp_path: Path) -> None:
        """Ten tasks over two stores on the file, each trying until its turn is in."""
        stores = [CtxMemConversationStore(tmp_path / "log.db") for _ in range(2)]

        async def add(task: int) -> None:
            while True:
                talk = await stores[task % 2].load("c") or Conversation(conversation_id="c")
                talk.messages.append(ModelRequest(parts=[UserPromptPart(str(task))]))
                try:
                    await stores[task % 2].save(talk)
                except ConversationConflict:
                    continue
                return

        await asyncio.gather(*(add(task) for task in range(10)))
        loaded = await stores[0].load("c")
        assert loaded is not None
        assert sorted(int(str(one.parts[0].content)) for one in loaded.messages) == list(range(10))
        for store in stores:
            store.close()

    async def test_conversations_go_with_their_user(self, manager: ContextManager) -> None:
        """And another's stay."""
        stores = {user: CtxMemConversationStore(manager=manager, user=user) for user in ("alice", "bob")}
        for store in stores.values():
            await store.save(Conversation(conversation_id="c", messages=[ModelRequest(parts=[UserPromptPart("hi")])]))
        manager.erase_user("alice")
        assert await stores["alice"].load("c") is None
        assert await stores["bob"].load("c") is not None


async def _acted(store: ConversationStore, act: str, own: tuple[list[Conversation], int], told: Any) -> Any:
    """What one operation gives: texts of messages, or the kind of its refusal."""
    (mine, which), (name, at, new, scope, step) = own, told
    found: Any = None
    try:
        if act == "save":
            mine[which].messages.append(ModelRequest(parts=[UserPromptPart(f"{step}")]))
            found = len(await store.save(mine[which], scope=scope))
        if act == "load":
            loaded = await store.load(name, scope=scope, limit=None if at % 2 else at)
            mine[which] = loaded or Conversation(conversation_id=name)
        if act == "branch":
            mine[which] = await store.branch(name, at=at, expected_revision=mine[which].revision, scope=scope)
        if act == "fork":
            found = _texts(await store.fork(name, at=at, new_conversation_id=new, scope=scope))
        if act == "delete":
            await store.delete(name, scope=scope)
        if act == "list":
            listed = await store.list_conversations(scope=scope)
            found = [(one.conversation_id, one.scope, one.forked_from, len(one.branches)) for one in listed]
    except (ConversationConflict, UserError) as error:
        found = type(error)
    return found, _texts(mine[which])


def _texts(talk: Conversation) -> list[str]:
    return [str(part.content) for message in talk.messages for part in message.parts]


@pytest.mark.parametrize("entry", ["missing", ""])
async def test_an_unknown_entry_is_a_lookup_error(manager: ContextManager, entry: str) -> None:
    """As the SDK's own store raises it."""
    for store in (InMemoryConversationStore(), CtxMemConversationStore(manager=manager)):
        with pytest.raises(LookupError):
            await store.read_entry(entry)
