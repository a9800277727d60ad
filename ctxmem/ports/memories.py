"""The truth about long-term memories."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from ctxmem.memory import Memory, MemoryBatch, MemoryChange, Scope


class MemoryStore(Protocol):
    """The truth about long-term memories. Every method is scoped to one tenant; errors are those of `Store`."""

    def apply(self, tenant: str, batch: MemoryBatch) -> Future[MemoryBatch]:
        """Write a batch, all or nothing; the future gives it as stored, or the first one of its idempotency key.

        The future raises `Conflict` when a memory is at another revision, the user's memories have changed since
        `batch.expected`, or the key was used for something else.
        """
        ...

    def version(self, tenant: str, user_id: str) -> int:
        """Version of the newest change to a user's memories; 0 when there was none.

        Each erasure of the user begins a new `GENERATION` of versions, so that none is ever given twice.
        """
        ...

    def kept(self, tenant: str, memory_ids: Sequence[str]) -> list[Memory]:
        """The memories that exist, in no promised order."""
        ...

    def scoped(self, tenant: str, scope: Scope, *, after: str = "", limit: int = 100) -> list[Memory]:
        """Memories of a scope by id after `after`, superseded and expired ones included."""
        ...

    def alike(self, tenant: str, user_id: str, digests: Sequence[bytes], topics: Sequence[str]) -> list[Memory]:
        """A user's active memories that have one of the digests or one of the topics."""
        ...

    def changes(self, tenant: str, memory_id: str) -> list[MemoryChange]:
        """What was done to a memory, oldest first."""
        ...

    def changed(self, tenant: str, user_id: str, after: int) -> list[str]:
        """Ids of the user's memories that have changed after a version, deleted ones included.

        Erasure leaves nothing behind, so it is not listed: what `kept` does not give back does not exist.
        """
        ...

    def replayed(self, tenant: str, key: str, digest: bytes) -> bytes | None:
        """The answer kept under an idempotency key; None when the key is free.

        Raises:
            Conflict: it was used for something else.
        """
        ...
