"""The truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from ctxmem.ports.checkpoints import Checkpoints
from ctxmem.ports.documents import DocumentStore
from ctxmem.ports.folders import Folders
from ctxmem.ports.memories import MemoryStore
from ctxmem.records import Batch, Branch, Erasure, Event, LedgerEntry, RequestRecord, Session


class Store(Protocol):
    """The truth: sessions, events, ledger, requests, artifacts. Every method is scoped to one tenant.

    Reads return values; writes are durable when their future resolves. All raise `StoreError` when the database is
    out of reach and `StoreFull` when it has no room.

    Attributes:
        memories: long-term memories, in the same database.
        documents: documents that can be searched, in the same database.
        checkpoints: graphs' checkpoints, in the same database.
        folders: what frameworks keep of their own, in the same database.
    """

    memories: MemoryStore
    documents: DocumentStore
    checkpoints: Checkpoints
    folders: Folders

    def write(self, tenant: str, batch: Batch) -> Future[Batch]:
        """Append a batch, all or nothing. The future resolves once it survives `kill -9`.

        The future gives the batch as stored: the first one when its idempotency key was used before with the same
        events. It raises `Conflict` when the session's revision is not `batch.expected`, or the key was used for
        something else.
        """
        ...

    def session(self, tenant: str, session_id: str) -> Session | None: ...

    def sessions(self, tenant: str, *, user_id: str | None = None, limit: int = 100, after: str = "") -> list[Session]:
        """Sessions by id after `after`."""
        ...

    def branch(self, tenant: str, session_id: str, number: int) -> Branch | None: ...

    def known(self, tenant: str, chains: Sequence[bytes], session_id: str | None = None) -> Event | None:
        """The event whose chain hash stands last in `chains`, in one session or any; newest wins."""
        ...

    def event(self, tenant: str, event_id: str) -> Event | None: ...

    def events(self, tenant: str, session_id: str, *, after_seq: int = -1, limit: int = 1000) -> list[Event]:
        """Events of all branches in seq order."""
        ...

    def history(
        self,
        tenant: str,
        session_id: str,
        branch: int,
        *,
        start: int = 0,
        stop: int | None = None,
        origin: str | None = None,
    ) -> list[Event]:
        """Events on a branch's path with `start <= depth < stop`, those shared with its parents included.

        With an origin, those of it alone.
        """
        ...

    def events_by_id(self, tenant: str, event_ids: Sequence[str]) -> list[Event]:
        """The events that exist, in no promised order."""
        ...

    def ledger(self, tenant: str, session_id: str, branch: int, *, turn: int | None = None) -> dict[str, LedgerEntry]:
        """By event id, the entry that holds for `branch` at `turn` (the newest when None)."""
        ...

    def request(self, tenant: str, request_id: str) -> RequestRecord | None: ...

    def requests(
        self, tenant: str, *, session_id: str | None = None, limit: int = 100, after: str = ""
    ) -> list[RequestRecord]:
        """Requests by id after `after`."""
        ...

    def put_artifact(self, tenant: str, content: bytes, *, session_id: str = "") -> str:
        """Keep content durably under its SHA-256 (hex), which is returned.

        Args:
            tenant: whose it is.
            content: what is kept.
            session_id: the session with which it is erased; empty for content kept for its own sake.

        Raises:
            NotFound: there is no such session.
        """
        ...

    def artifact(self, tenant: str, sha256: str) -> bytes | None: ...

    def erase_session(self, tenant: str, session_id: str) -> Erasure: ...

    def erase_user(self, tenant: str, user_id: str) -> Erasure: ...

    def health(self) -> Mapping[str, str]:
        """State by part: `write`, `migrations`, `dialect`; raises `StoreError` when it cannot even be asked."""
        ...

    def close(self) -> None:
        """Flush what is queued and let go of the database."""
        ...
