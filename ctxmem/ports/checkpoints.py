"""The truth about graphs' checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from ctxmem.checkpoint import Asked, Checkpoint, CheckpointKey, Packed, PendingWrite, Saved


class Checkpoints(Protocol):
    """Checkpoints by thread, which is a session. Every method is scoped to one tenant; errors are those of `Store`."""

    def put(self, tenant: str, checkpoint: Checkpoint, values: Mapping[str, Packed]) -> Future[None]:
        """Keep a checkpoint in the place of the one with its key, and what its channels held, by hash."""
        ...

    def put_writes(self, tenant: str, key: CheckpointKey, writes: Sequence[PendingWrite]) -> Future[None]:
        """Keep writes; one that is there stays as it is, unless its place is negative."""
        ...

    def get(self, tenant: str, session_id: str, namespace: str, id: str | None = None) -> Saved | None:
        """A checkpoint as of one moment; the newest when no id is given."""
        ...

    def find(self, tenant: str, asked: Asked, *, limit: int) -> list[Checkpoint]:
        """Checkpoints by id, newest first, then by thread and namespace, falling."""
        ...

    def delete(self, tenant: str, session_ids: Sequence[str]) -> Future[None]:
        """Delete threads."""
        ...

    def delete_runs(self, tenant: str, run_ids: Sequence[str]) -> Future[None]:
        """Delete the checkpoints that runs made, with their writes."""
        ...

    def copy(self, tenant: str, source: str, target: str) -> Future[None]:
        """Copy a thread; what the target has already stays."""
        ...

    def prune(self, tenant: str, session_ids: Sequence[str]) -> Future[None]:
        """Keep of each thread the newest checkpoint of every namespace, and those before it that it needs."""
        ...
