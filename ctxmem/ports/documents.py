"""The truth about documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from ctxmem.document import Chunk, Document, Filter, Shelf
from ctxmem.job import Job


class DocumentStore(Protocol):
    """The truth about documents, chunks and vectors. Every method is scoped to one tenant; errors are those of `Store`.

    A vector is kept as little-endian float32 bytes under its embedder's fingerprint.
    """

    def put(
        self, tenant: str, made: Sequence[tuple[Document, Sequence[Chunk]]], *, jobs: Sequence[Job] = ()
    ) -> Future[int]:
        """Keep documents, all of one namespace, in the place of those with their ids, and queue jobs, all or nothing.

        Chunks whose ids are known keep their vectors. The future gives the namespace's new version.
        """
        ...

    def delete(self, tenant: str, namespace: str, document_ids: Sequence[str]) -> Future[int]:
        """Delete documents with their chunks and vectors; the future gives how many were there."""
        ...

    def document(self, tenant: str, namespace: str, document_id: str) -> Document | None: ...

    def documents(
        self, tenant: str, namespace: str, ids: Sequence[str] | None = None, *, limit: int = 100, after: str = ""
    ) -> dict[str, Document]:
        """By id, documents that exist, their texts left out: those named, else by id after `after`."""
        ...

    def matching(self, tenant: str, namespace: str, wanted: Filter) -> set[str]:
        """Ids of the documents that pass the filter."""
        ...

    def shelf(self, tenant: str, namespace: str) -> Shelf | None: ...

    def outline(self, tenant: str, namespace: str) -> dict[str, tuple[str, str]]:
        """By chunk id, its document's id and the fingerprint of its vector; empty for none yet."""
        ...

    def chunks(self, tenant: str, namespace: str, chunk_ids: Sequence[str]) -> list[Chunk]:
        """The chunks that exist, in no promised order."""
        ...

    def vectors(self, tenant: str, namespace: str, chunk_ids: Sequence[str], fingerprint: str) -> dict[str, bytes]:
        """By chunk id, the vectors of that embedder that are kept."""
        ...

    def pending(self, tenant: str, namespace: str, fingerprint: str, *, limit: int) -> list[Chunk]:
        """Chunks that have no vector of that embedder, some of them."""
        ...

    def put_vectors(self, tenant: str, namespace: str, fingerprint: str, vectors: Mapping[str, bytes]) -> Future[int]:
        """Keep vectors of chunks that still exist; the future gives how many.

        It raises `Conflict` when the namespace belongs to another embedder.
        """
        ...

    def claim(self, tenant: str, namespace: str, fingerprint: str, *, replace: bool = False) -> Future[Shelf]:
        """Give a namespace that has no embedder to this one, or with `replace` one that has.

        The future gives the head, which may name another embedder when `replace` is false.
        """
        ...
