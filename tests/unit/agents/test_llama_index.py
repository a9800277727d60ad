"""The block in LlamaIndex's own `Memory`."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory

from ctxmem import ContextManager
from ctxmem.agents.llama_index import CtxMemBlock


def memory(block: CtxMemBlock) -> Memory:
    """A small short-term memory before the block."""
    return Memory.from_defaults(
        session_id="s", memory_blocks=[block], token_limit=120, token_flush_size=20, tokenizer_fn=str.split,
        chat_history_token_ratio=0.5,
    )  # fmt: skip


class TestBlock:
    async def test_what_leaves_the_short_term_memory_comes_back(self, manager: ContextManager) -> None:
        """Said long ago, asked for now."""
        remembering = memory(CtxMemBlock(manager=manager, user="alice"))
        await remembering.aput(ChatMessage(role="user", content="I live in Lisbon."))
        for n in range(12):
            await remembering.aput(ChatMessage(role="user", content=f"Number {n}: " + "and so on " * 5))
            await remembering.aput(ChatMessage(role="assistant", content="I see."))
        await remembering.aput(ChatMessage(role="user", content="Where do I live?"))
        given = await remembering.aget()
        assert "I live in Lisbon." in str(given[0].content)
        assert all("Lisbon" not in str(message.content) for message in given[1:])
        await remembering.sql_store._async_engine.dispose()

    async def test_users_are_apart_and_can_be_erased(self, manager: ContextManager) -> None:
        """One never reads what another said."""
        alice, bob = (CtxMemBlock(manager=manager, user=user) for user in ("alice", "bob"))
        await alice.aput([ChatMessage(role="user", content="I live in Lisbon.")])
        asked = [ChatMessage(role="user", content="Where do I live?")]
        assert await bob.aget(asked) == ""
        assert await alice.aget(asked) == "I live in Lisbon."
        manager.erase_user("alice")
        assert await alice.aget(asked) == ""

    async def test_foreign_messages_do_no_harm(self, manager: ContextManager) -> None:
        """Tool messages, system texts, empty and very long ones."""
        block = CtxMemBlock(manager=manager, user="alice")
        odd = [ChatMessage(role=role, content=None) for role in ("tool", "system", "assistant", "user")]
        await block.aput([*odd, ChatMessage(role="tool", content="I live in Rome.")])
        assert await block.aget(None) == ""
        assert await block.aget([*odd, ChatMessage(role="user", content="Where? " * 300_000)]) == ""

    @pytest.mark.parametrize("tokens", [0, 1, 4, 1000])
    async def test_what_answers_least_is_left_out_first(self, manager: ContextManager, tokens: int) -> None:
        """By whole memories."""
        block = CtxMemBlock(manager=manager, user="alice")
        lines = ["I live in Lisbon.", "My cat is called Miso.", "I work as a baker."]
        left = await block.atruncate("\n".join(lines), tokens)
        kept = [] if left is None else left.split("\n")
        assert kept == lines[: len(kept)]
        saved = block.manager.engine.counters("").texts(lines[len(kept) :])
        assert sum(saved) >= min(tokens, sum(block.manager.engine.counters("").texts(lines)))
