"""Compressed memories in the model worker: found for a chat, or made behind it for the next one.

A chat never waits for a memory to be made. Until it is there the model reads the state's text, as any other model does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctxmem.errors import CtxmemError
from ctxmem.ports import Cache, SlotName, SlotStore
from service.worker.turns import Rank, Turns

if TYPE_CHECKING:
    from ctxmem.lm.causal import CausalLM
    from ctxmem.lm.ccm.memory import Memory, MemoryModel
    from ctxmem.lm.ccm.sessions import SessionMemories
    from ctxmem.lm.generate import ChatModel
    from ctxmem.lm.reply import Completion, Piece, Sampling

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A memory, and the model that reads it.

    Attributes:
        name: the memory's.
        memory: itself.
        model: the language model with its adapter.
    """

    name: SlotName
    memory: Memory
    model: MemoryModel

    def reply(
        self, chat: ChatModel, prompt: Sequence[int], sampling: Sampling, *, session: str | None
    ) -> Generator[Piece, None, Completion]:
        """Answer a prompt behind the memory, which stays as it is; for the compute thread."""
        from ctxmem.lm.sessions import Past

        past = Past(self.name.event_id, self.model.cache(self.memory))
        done = yield from chat.reply(prompt, sampling, session=session, behind=past)
        return replace(done, memory_slots=self.memory.slots, memory_bytes=self.memory.states.nbytes)


class Memories:
    """Memories of one language model, all work on which is done in turns."""

    def __init__(self, store: Callable[[], SlotStore], cache: Callable[[], Cache], *, adapter: str = "") -> None:
        """Say where memories are kept, and what makes them; nothing is opened before the first is asked for."""
        self._store = store
        self._cache = cache
        self._adapter = adapter
        self._making: dict[SlotName, asyncio.Task[None]] = {}
        self._opened: SessionMemories | None = None

    async def find(self, name: SlotName, lm: CausalLM, turns: Turns) -> Found | None:
        """The memory; when there is none yet it is begun, and None says that the text has to do."""
        try:
            sessions, memory = await turns.call(lambda: self._found(name, lm))
        except CtxmemError as error:
            _LOG.warning("no compressed memory: %s", error)
            return None
        if memory is not None:
            return Found(name, memory, sessions.model)
        if name not in self._making:
            self._making[name] = asyncio.create_task(self._make(name, sessions, turns))
        return None

    def close(self) -> None:
        """Leave what is being made; it is begun again by the next chat that needs it."""
        for task in self._making.values():
            task.cancel()

    async def _make(self, name: SlotName, sessions: SessionMemories, turns: Turns) -> None:
        try:
            async with turns.work(sessions.make(name), rank=Rank.BACKGROUND) as work:
                async for _ in work:
                    pass
        except CtxmemError as error:
            _LOG.warning("a compressed memory could not be made: %s", error)
        finally:
            del self._making[name]

    def _found(self, name: SlotName, lm: CausalLM) -> tuple[SessionMemories, Memory | None]:
        """Look up in the compute thread; the first time, hook the adapter into the model and open the store."""
        from ctxmem.lm.ccm.compressed import ADAPTER, CompressedLM
        from ctxmem.lm.ccm.sessions import SessionMemories

        if self._opened is None:
            self._opened = SessionMemories(CompressedLM(lm, self._adapter or ADAPTER), self._store(), self._cache())
        return self._opened, self._opened.find(name)
