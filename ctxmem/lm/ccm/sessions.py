"""The memories of sessions: made from what the log says a state stands for, kept beside it, and never changed.

A memory is named by the state event at which its conversation was folded. It takes in that event's messages behind the
memory of the state before, so a session that was edited, rewound or forked has the memory of its own branch. What is
lost, damaged or another model's is made again from the log.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from ctxmem import chat
from ctxmem.errors import InvalidInput, NotFound
from ctxmem.lm.ccm.blobs import Packing, pack, unpack
from ctxmem.lm.ccm.compressed import CompressedLM
from ctxmem.lm.ccm.memory import Memory, MemoryModel
from ctxmem.lm.ccm.update import Update
from ctxmem.ports import Cache, SlotName, SlotStore
from ctxmem.records import Event

ENDLESS = Update("hybrid", bank=8)
"""The rule of a session's memory: at most nine groups, however long the session."""
TOKENS = 4
"""Slots per group."""
VERSIONS = 4
"""Memories of a session that are kept: the newest, and some to rewind to."""
ROOM = 64 * 2**20
"""Bytes of memories kept in this process."""
TTL = 3600.0
"""Seconds that a memory stays in the shared cache."""

_LOG = logging.getLogger(__name__)


class SessionMemories:
    """Memories by state event. For the thread of its model."""

    def __init__(
        self,
        lm: CompressedLM,
        store: SlotStore,
        cache: Cache,
        *,
        update: Update = ENDLESS,
        tokens: int = TOKENS,
        packing: Packing = "exact",
    ) -> None:
        """Bind a model to where its memories are kept.

        Args:
            lm: writes and reads them.
            store: the truth.
            cache: a hot copy for other processes.
            update: rule of new memories.
            tokens: slots per group of new memories.
            packing: how they are kept at rest; int8 halves them and changes them a little.
        """
        self._lm = lm
        self._store = store
        self._cache = cache
        self._empty = lm.empty(update, tokens=tokens)
        self._packing = packing
        self._hot: OrderedDict[SlotName, Memory] = OrderedDict()

    @property
    def model(self) -> MemoryModel:
        """Gives caches of memories that were found or made."""
        return self._lm.model

    def find(self, name: SlotName) -> Memory | None:
        """A session's memory if it has been made: from this process, the shared cache or the store.

        Raises:
            StoreError: the database is out of reach.
        """
        found = self._hot.get(name) or self._cached(name)
        if found is None:
            found = self._read(self._store.slots(name, self.model.maker))
        if found is not None:
            self._remember(name, found)
        return found

    def make(self, name: SlotName) -> Generator[int, None, Memory]:
        """A session's memory, made now unless it is there; yields the tokens that each step read.

        Raises:
            NotFound: the log knows of nothing that the event stands for.
            StoreError: the database is out of reach.
        """
        missing: list[tuple[SlotName, list[Event]]] = []
        earlier: SlotName | None = name
        memory = None
        while earlier is not None and (memory := self.find(earlier)) is None:
            folded = self._store.folded(earlier)
            if not folded:
                raise NotFound(f"nothing was folded into {earlier.event_id!r}")
            missing.append((earlier, folded))
            states = [event.id for event in folded if event.kind == "state"]
            earlier = replace(name, event_id=states[0]) if states else None
        memory = memory or self._empty
        for later, folded in reversed(missing):
            for ids in self._lm.steps(list(said(folded))):
                memory = self.model.compress(memory, ids)
                yield len(ids)
            self._keep(later, memory)
        return memory

    def _keep(self, name: SlotName, memory: Memory) -> None:
        blob = pack(memory, self._packing)
        if self._store.keep(name, memory.maker, blob, versions=VERSIONS):
            self._cache.put(name.tenant, name.cache_key, name.event_id.encode() + b"\0" + blob, ttl=TTL)
            self._remember(name, memory)

    def _cached(self, name: SlotName) -> Memory | None:
        """The memory in the shared cache, if it is this one of its session."""
        event_id, _, blob = (self._cache.get(name.tenant, name.cache_key) or b"").partition(b"\0")
        return self._read(blob) if event_id == name.event_id.encode() else None

    def _read(self, blob: bytes | None) -> Memory | None:
        try:
            return unpack(blob, self.model.maker) if blob is not None else None
        except InvalidInput as error:
            _LOG.warning("a compressed memory is made again: %s", error)
            return None

    def _remember(self, name: SlotName, memory: Memory) -> None:
        self._hot[name] = memory
        self._hot.move_to_end(name)
        while sum(kept.states.nbytes for kept in self._hot.values()) > ROOM:
            self._hot.popitem(last=False)


def said(events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """Role and text of what was said in events; what ctxmem put in is nobody's word."""
    for event in events:
        message = chat.parse(event.raw)
        text = message.readable.strip()
        if text and event.kind is None:
            yield message.role, text
