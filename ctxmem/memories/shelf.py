"""A user's memories at hand, for reading: refreshed by the version of their newest change, lost without harm."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from ctxmem.memories.lexicon import Lexicon
from ctxmem.memory import GENERATION, Memory, Scope
from ctxmem.ports import MemoryStore

MOST_SHELVES = 128
"""Users whose memories are kept at hand."""

_PAGE = 1_000


class Shelf:
    """Memories and where their words are.

    Attributes:
        memories: by id.
        lexicon: their words, with their speakers'.
        version: of the user's newest change that is in it.
        lock: held while it is read or refreshed.
    """

    def __init__(self, version: int = 0) -> None:
        """An empty one."""
        self.memories: dict[str, Memory] = {}
        self.lexicon = Lexicon()
        self.version = version
        self.lock = threading.RLock()

    def put(self, memory: Memory) -> None:
        """Take a memory in, or its newest revision."""
        self.memories[memory.id] = memory
        self.lexicon.put(memory.id, spoken(memory))

    def drop(self, memory_id: str) -> None:
        """Let go of a memory, if it is there."""
        if self.memories.pop(memory_id, None) is not None:
            self.lexicon.drop(memory_id)


class Shelves:
    """The shelves of one tenant. Safe for threads."""

    def __init__(self, store: MemoryStore, tenant: str) -> None:
        """None yet.

        Args:
            store: the truth.
            tenant: whose.
        """
        self._store = store
        self._tenant = tenant
        self._kept: OrderedDict[str, Shelf] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, who: Scope) -> Shelf:
        """What there is of a scope, as new as the truth when this was called."""
        if not who.user_id:
            return self._gathered(who)
        with self._lock:
            kept = self._kept.get(who.user_id)
            version = self._store.version(self._tenant, who.user_id)
            if kept is None or version < kept.version or version // GENERATION > kept.version // GENERATION:
                kept = self._gathered(Scope(who.user_id), version)
            elif version > kept.version:
                kept = self._refreshed(kept, who.user_id, version)
            self._kept[who.user_id] = kept
            self._kept.move_to_end(who.user_id)
            while len(self._kept) > MOST_SHELVES:
                self._kept.popitem(last=False)
            return kept

    def to_write(self, who: Scope) -> Shelf:
        """The memories that a new one of the scope is compared with: its user's, or those of nobody."""
        if who.user_id:
            return self.of(who)
        version = self._store.version(self._tenant, "")
        shelf = Shelf(version)
        for memory in every(self._store, self._tenant, who):
            if not memory.user_id:
                shelf.put(memory)
        return shelf

    def forget(self, user_id: str) -> None:
        """Let go of a user's memories."""
        with self._lock:
            self._kept.pop(user_id, None)

    def _gathered(self, who: Scope, version: int = 0) -> Shelf:
        shelf = Shelf(version)
        for memory in every(self._store, self._tenant, who):
            shelf.put(memory)
        return shelf

    def _refreshed(self, kept: Shelf, user_id: str, version: int) -> Shelf:
        changed = self._store.changed(self._tenant, user_id, kept.version)
        found = {memory.id: memory for memory in self._store.kept(self._tenant, changed)}
        with kept.lock:
            for memory_id in changed:
                if memory_id in found:
                    kept.put(found[memory_id])
                else:
                    kept.drop(memory_id)
            kept.version = version
        return kept


def every(store: MemoryStore, tenant: str, who: Scope) -> Iterator[Memory]:
    """All memories of a scope, superseded and expired ones included, by id."""
    after = ""
    while page := store.scoped(tenant, who, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def spoken(memory: Memory, text: str = "") -> str:
    """What search reads of a memory: who said it, and what; or more than it that the same one said."""
    said = text or memory.text
    return f"{memory.speaker}: {said}" if memory.speaker else said


def within(memory: Memory, who: Scope) -> bool:
    """Whether a memory is of a scope."""
    return all(
        not wanted or wanted == had
        for wanted, had in (
            (who.user_id, memory.user_id),
            (who.agent_id, memory.agent_id),
            (who.session_id, memory.session_id),
        )
    )
