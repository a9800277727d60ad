"""Compressed memories in the model worker: found for a chat, or made behind it for the next one.

A chat never waits for a memory to be made. Until it is there the model reads the state's text, as any other model does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from ctxmem.errors import CtxmemError
from ctxmem.ports import Cache, SlotName, SlotStore
from service.worker.turns import Rank, Turns

if TYPE_CHECKING:
    from ctxmem.lm.causal import CausalLM
    from ctxmem.lm.ccm.compressed import CompressedLM
    from ctxmem.lm.ccm.memory import Memory
    from ctxmem.lm.ccm.sessions import SessionMemories

_LOG = logging.getLogger(__name__)


class Memories:
    """Memories of one language model, all work on which is done in turns."""

    def __init__(self, store: Callable[[], SlotStore], cache: Callable[[], Cache]) -> None:
        """Say where memories are kept; nothing is opened before the first is asked for."""
        self._store = store
        self._cache = cache
        self._making: dict[SlotName, asyncio.Task[None]] = {}
        self._lm: CausalLM | None = None

    async def find(self, name: SlotName, lm: CausalLM, turns: Turns) -> Memory | None:
        """The memory; when there is none yet it is begun, and None says that the text has to do."""
        self._lm = lm
        try:
            found = await turns.call(lambda: self._sessions.find(name))
        except CtxmemError as error:
            _LOG.warning("no compressed memory: %s", error)
            return None
        if found is None and name not in self._making:
            self._making[name] = asyncio.create_task(self._make(name, turns))
        return found

    @property
    def model(self) -> CompressedLM:
        """The language model with its adapter, once a memory was found."""
        return self._compressed

    def close(self) -> None:
        """Leave what is being made; it is begun again by the next chat that needs it."""
        for task in self._making.values():
            task.cancel()

    async def _make(self, name: SlotName, turns: Turns) -> None:
        try:
            async with turns.work(self._sessions.make(name), rank=Rank.BACKGROUND) as work:
                async for _ in work:
                    pass
        except CtxmemError as error:
            _LOG.warning("a compressed memory could not be made: %s", error)
        finally:
            del self._making[name]

    @cached_property
    def _compressed(self) -> CompressedLM:
        """Hooks the adapter into the model; what does not compress sees the model as it was."""
        from ctxmem.lm.ccm.compressed import CompressedLM

        assert self._lm is not None
        return CompressedLM(self._lm)

    @cached_property
    def _sessions(self) -> SessionMemories:
        from ctxmem.lm.ccm.sessions import SessionMemories

        return SessionMemories(self._compressed, self._store(), self._cache())
