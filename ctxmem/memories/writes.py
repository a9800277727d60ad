"""Writing decisions down: decided on what there is, and anew as long as somebody else was first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from ctxmem.errors import Conflict
from ctxmem.memories.asked import Outcome, Terms
from ctxmem.memories.calls import Told, replayed
from ctxmem.memories.shelf import Shelves
from ctxmem.memories.writing import Candidate, Writing
from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope
from ctxmem.ports import MemoryStore

Made = TypeVar("Made")

TRIES = 16
"""Times that a write is decided before it gives up to other writers."""

_STRIPES = 64


@dataclass(frozen=True, slots=True)
class Call:
    """How the same call is known again.

    Attributes:
        key: the caller's idempotency key; None for none.
        digest: hash of what was asked.
    """

    key: str | None
    digest: bytes


class Writes:
    """The writer of one tenant's memories. Safe for threads: one writer of a user at a time in this process."""

    def __init__(self, store: MemoryStore, tenant: str, shelves: Shelves, clock: Callable[[], float]) -> None:
        """Bind to a store.

        Args:
            store: the truth.
            tenant: whose memories.
            shelves: what there is.
            clock: seconds since 1970.
        """
        self._store = store
        self._tenant = tenant
        self._shelves = shelves
        self._clock = clock
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))

    def add(self, who: Scope, terms: Terms, candidates: Sequence[Candidate], done: Told, call: Call) -> Told:
        """Decide what becomes of each candidate and write that; durable on return.

        Raises:
            Conflict: the key was used for something else, or other writers kept coming first.
        """

        def once() -> Told:
            shelf = self._shelves.to_write(who)
            with shelf.lock:
                writing = Writing(shelf, who, terms, self._clock()).take(candidates)
                batch = writing.batch()
            told = replace(done, results=tuple(writing.outcomes))
            batch = replace(batch, key=call.key, digest=call.digest, result=told.packed())
            stored = self._store.apply(self._tenant, batch).result()
            if stored.result != batch.result:
                return replayed(stored.result, self._store, self._tenant)
            return told

        return self._persisting(who.user_id, once)

    def load(self, user_id: str, rows: Sequence[Memory]) -> Sequence[Outcome]:
        """Write what is not known yet of the rows of one user; durable on return.

        Raises:
            Conflict: other writers kept coming first.
        """
        theirs = {one.digest: one for one in rows if one.user_id == user_id}

        def once() -> Sequence[Outcome]:
            shelf = self._shelves.to_write(Scope(user_id))
            with shelf.lock:
                known = {one.digest: one for one in shelf.memories.values()}
                version = shelf.version
            new = tuple(one for digest, one in theirs.items() if digest not in known)
            changes = tuple(MemoryChange(one.id, "ADD", "", one.text, "import", one.recorded_at) for one in new)
            self._store.apply(self._tenant, MemoryBatch(user_id, version, put=new, changes=changes)).result()
            kept = [(known.get(digest, one), digest in known) for digest, one in theirs.items()]
            return [Outcome(one.id, one.text, "NONE" if old else "ADD") for one, old in kept]

        return self._persisting(user_id, once)

    def _persisting(self, user_id: str, once: Callable[[], Made]) -> Made:
        """Do it until nobody was first."""
        with self._locks[hash(user_id) % _STRIPES]:
            for _ in range(TRIES - 1):
                with suppress(Conflict):
                    return once()
            return once()
