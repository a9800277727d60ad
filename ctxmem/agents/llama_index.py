"""LlamaIndex: a memory block over long-term memories, for `Memory.from_defaults(memory_blocks=[CtxMemBlock(...)])`."""

from __future__ import annotations

import asyncio
from typing import Any

try:
    from llama_index.core.base.llms.types import ChatMessage, MessageRole
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.memory import BaseMemoryBlock
except ImportError as error:
    raise ImportError('ctxmem.agents.llama_index needs llama-index-core: pip install "ctxmem[llama-index]"') from error

from ctxmem.manager import ContextManager
from ctxmem.memories import Memories, Scope, Wanted

_LONGEST_QUERY = 2_000
"""Characters of the newest message that are searched with."""


class CtxMemBlock(BaseMemoryBlock[str]):
    """What leaves the short-term memory becomes memories; those that answer the newest message come back.

    Attributes:
        manager: keeps the memories; its tenant is the block's.
        user: whose memories.
        session: only those of this session.
        top_k: most memories to give.
    """

    name: str = Field(default="ctxmem", description="The name of the block.")
    manager: ContextManager = Field(exclude=True)
    user: str
    session: str = ""
    top_k: int = Field(default=5, gt=0, le=1000)

    @property
    def _memories(self) -> Memories:
        return self.manager.memories

    @property
    def _who(self) -> Scope:
        return Scope(self.user, session_id=self.session)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """The memories that answer the newest user message, one a line, best first; empty without any."""
        asked = next((m.content for m in reversed(messages or []) if m.role == MessageRole.USER and m.content), "")
        query = asked[-_LONGEST_QUERY:]
        if not query.strip():
            return ""
        found = await asyncio.to_thread(self._memories.search, query, self._who, Wanted(top_k=self.top_k))
        return "\n".join(hit.memory.text for hit in found.hits)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Keep what users and assistants said."""
        told = [{"role": m.role.value, "content": m.content} for m in messages if m.content and _is_said(m)]
        if told:
            await asyncio.to_thread(self._memories.add, told, self._who)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Leave out the memories that answer least, until that many tokens are saved."""
        counter = self.manager.engine.counters("")
        lines = content.split("\n")
        while lines and tokens_to_truncate > 0:
            tokens_to_truncate -= counter.texts([lines.pop()])[0]
        return "\n".join(lines) or None


def _is_said(message: ChatMessage) -> bool:
    return message.role in (MessageRole.USER, MessageRole.ASSISTANT)
