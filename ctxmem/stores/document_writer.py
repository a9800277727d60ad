"""Writing documents, inside the transaction that is given. The namespace's head moves first: it orders all writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, Table, delete, select, update

from ctxmem.document import FORGET, Chunk, Document, Shelf
from ctxmem.errors import Conflict, InvalidInput
from ctxmem.job import Job, job
from ctxmem.stores import statements
from ctxmem.stores.document_schema import chunks, documents, shelves
from ctxmem.stores.jobs import JobWriter
from ctxmem.stores.reads import chunks as parts
from ctxmem.stores.rows import json_text

_PLACES = ("document_id", "seq", "start", "end")
"""What may change of a chunk that keeps its id, and its vector."""


class DocumentWriter:
    """Writes documents in one dialect of SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self._first = statements.insert_new(dialect, shelves)
        self._document = statements.upsert(dialect, documents)
        self._chunk = statements.insert_new(dialect, chunks)
        self._jobs = JobWriter(dialect)

    def put(
        self,
        connection: Connection,
        tenant: str,
        made: Sequence[tuple[Document, Sequence[Chunk]]],
        jobs: Sequence[Job],
    ) -> int:
        """Write documents of one namespace; returns its new version.

        Raises:
            InvalidInput: a document's metadata has no JSON form.
        """
        version = 0
        for namespace in {document.namespace for document, _ in made}:
            version = self._move(connection, tenant, namespace).version
        for document, pieces in made:
            self._put_one(connection, tenant, document, pieces)
        if jobs:
            self._jobs.add(connection, tenant, jobs)
        return version

    def delete(self, connection: Connection, tenant: str, namespace: str, document_ids: Sequence[str]) -> int:
        """Delete documents with their chunks, and leave the disk's share to a job; returns how many were there."""
        self._move(connection, tenant, namespace)
        count = 0
        for some in parts(document_ids):
            connection.execute(delete(chunks).where(*_in(chunks, tenant, namespace), chunks.c.document_id.in_(some)))
            ours = (*_in(documents, tenant, namespace), documents.c.id.in_(some))
            count += connection.execute(delete(documents).where(*ours)).rowcount
        if count:
            self._jobs.add(connection, tenant, [off_disk(namespace)])
        return count

    def put_vectors(self, connection: Connection, tenant: str, shelf: Shelf, vectors: Mapping[str, bytes]) -> int:
        """Write vectors of chunks that exist; returns how many.

        Raises:
            Conflict: the namespace belongs to another embedder.
        """
        found = self._move(connection, tenant, shelf.namespace)
        if found.fingerprint != shelf.fingerprint:
            raise Conflict(f"namespace {shelf.namespace!r} was given to embedder {found.fingerprint!r} meanwhile")
        count = 0
        for chunk_id, vector in vectors.items():
            ours = (*_in(chunks, tenant, shelf.namespace), chunks.c.id == chunk_id)
            changed = update(chunks).where(*ours).values(vector=vector, fingerprint=shelf.fingerprint)
            count += connection.execute(changed).rowcount
        return count

    def claim(self, connection: Connection, tenant: str, shelf: Shelf, *, replace: bool) -> Shelf:
        """Give the namespace to an embedder; returns its head."""
        found = self._move(connection, tenant, shelf.namespace)
        if found.fingerprint == shelf.fingerprint or (found.fingerprint and not replace):
            return found
        ours = _in(shelves, tenant, shelf.namespace)
        connection.execute(update(shelves).where(*ours).values(fingerprint=shelf.fingerprint))
        return Shelf(shelf.namespace, found.version, shelf.fingerprint)

    def _move(self, connection: Connection, tenant: str, namespace: str) -> Shelf:
        """The namespace's head, one version on; other writers of it wait here."""
        row = {"tenant": tenant, "namespace": namespace, "version": 0, "fingerprint": ""}
        connection.exec_driver_sql(self._first, row)
        ours = _in(shelves, tenant, namespace)
        connection.execute(update(shelves).where(*ours).values(version=shelves.c.version + 1))
        version, fingerprint = connection.execute(select(shelves.c.version, shelves.c.fingerprint).where(*ours)).one()
        return Shelf(namespace, version, fingerprint)

    def _put_one(self, connection: Connection, tenant: str, document: Document, pieces: Sequence[Chunk]) -> None:
        row: dict[str, Any] = {field.name: getattr(document, field.name) for field in fields(Document)}
        try:
            row["metadata"] = json_text(row["metadata"])
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput(f"metadata has no JSON form: {error}", param="metadata") from error
        connection.exec_driver_sql(self._document, row | {"tenant": tenant})
        ours = (*_in(chunks, tenant, document.namespace), chunks.c.document_id == document.id)
        old = set(connection.scalars(select(chunks.c.id).where(*ours)))
        for some in parts(old - {piece.id for piece in pieces}):
            connection.execute(delete(chunks).where(*ours, chunks.c.id.in_(some)))
        for piece in pieces:
            self._put_chunk(connection, tenant, document.namespace, piece, is_known=piece.id in old)

    def _put_chunk(self, connection: Connection, tenant: str, namespace: str, chunk: Chunk, *, is_known: bool) -> None:
        if is_known:
            places = {name: getattr(chunk, name) for name in _PLACES}
            ours = (*_in(chunks, tenant, namespace), chunks.c.id == chunk.id)
            connection.execute(update(chunks).where(*ours).values(**places))
            return
        row = {field.name: getattr(chunk, field.name) for field in fields(Chunk)}
        row |= {"tenant": tenant, "namespace": namespace, "fingerprint": "", "vector": None}
        connection.exec_driver_sql(self._chunk, row)


def off_disk(namespace: str) -> Job:
    """The job that takes vectors of what is gone off the disk; one at a time waits for a namespace."""
    return job(FORGET, {"namespace": namespace}, key=namespace)


def _in(table: Table, tenant: str, namespace: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.tenant == tenant, table.c.namespace == namespace
