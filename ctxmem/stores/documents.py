"""Documents in SQL: a document and its chunks change in one transaction, and reads see one tenant's rows only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, or_, select

from ctxmem.document import Chunk, Document, Filter, Shelf
from ctxmem.job import Job
from ctxmem.ports import DocumentStore
from ctxmem.stores.document_schema import chunks, documents, shelves
from ctxmem.stores.document_writer import DocumentWriter
from ctxmem.stores.reads import chunks as parts
from ctxmem.stores.writer import Database

_DOCUMENT = tuple(documents.c[field.name] for field in fields(Document))
_HEAD = tuple(column for column in _DOCUMENT if column.name != "text")
_CHUNK = tuple(chunks.c[field.name] for field in fields(Chunk))
_SHELF = tuple(shelves.c[field.name] for field in fields(Shelf))


class SqlDocuments(DocumentStore):
    """A `DocumentStore` beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._writer = DocumentWriter(database.dialect)
        self._commits = database.commits
        self._reading = database.reading

    def put(
        self, tenant: str, made: Sequence[tuple[Document, Sequence[Chunk]]], *, jobs: Sequence[Job] = ()
    ) -> Future[int]:
        return self._commits.submit(partial(self._writer.put, tenant=tenant, made=made, jobs=jobs))

    def delete(self, tenant: str, namespace: str, document_ids: Sequence[str]) -> Future[int]:
        work = partial(self._writer.delete, tenant=tenant, namespace=namespace, document_ids=document_ids)
        return self._commits.submit(work)

    def document(self, tenant: str, namespace: str, document_id: str) -> Document | None:
        query = select(*_DOCUMENT).where(*_in(documents, tenant, namespace), documents.c.id == document_id)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else Document(*row)

    def documents(
        self, tenant: str, namespace: str, ids: Sequence[str] | None = None, *, limit: int = 100, after: str = ""
    ) -> dict[str, Document]:
        query = select(*_HEAD).where(*_in(documents, tenant, namespace))
        if ids is None:
            query = query.where(documents.c.id > after).order_by(documents.c.id).limit(limit)
        rows = self._rows(query, documents.c.id, ids)
        return {row.id: Document(**row._mapping, text="") for row in rows}

    def matching(self, tenant: str, namespace: str, wanted: Filter) -> set[str]:
        table, where = documents, []
        if wanted.user_id:
            where.append(or_(table.c.user_id == wanted.user_id, table.c.user_id == ""))
        if wanted.session_id:
            where.append(table.c.session_id == wanted.session_id)
        if wanted.since is not None:
            where.append(table.c.at >= wanted.since)
        if wanted.until is not None:
            where.append(table.c.at < wanted.until)
        query = select(table.c.id, table.c.metadata).where(*_in(table, tenant, namespace), *where)
        named = None if wanted.document_ids is None else set(wanted.document_ids)
        with self._reading() as connection:
            found = [(row.id, row.metadata) for row in connection.execute(query)]
        return {id for id, metadata in found if wanted.passes(metadata) and (named is None or id in named)}

    def shelf(self, tenant: str, namespace: str) -> Shelf | None:
        with self._reading() as connection:
            row = connection.execute(select(*_SHELF).where(*_in(shelves, tenant, namespace))).first()
        return None if row is None else Shelf(*row)

    def outline(self, tenant: str, namespace: str) -> dict[str, tuple[str, str]]:
        query = select(chunks.c.id, chunks.c.document_id, chunks.c.fingerprint).where(*_in(chunks, tenant, namespace))
        with self._reading() as connection:
            return {row.id: (row.document_id, row.fingerprint) for row in connection.execute(query)}

    def chunks(self, tenant: str, namespace: str, chunk_ids: Sequence[str]) -> list[Chunk]:
        query = select(*_CHUNK).where(*_in(chunks, tenant, namespace))
        return [Chunk(*row) for row in self._rows(query, chunks.c.id, chunk_ids)]

    def vectors(self, tenant: str, namespace: str, chunk_ids: Sequence[str], fingerprint: str) -> dict[str, bytes]:
        query = select(chunks.c.id, chunks.c.vector).where(
            *_in(chunks, tenant, namespace), chunks.c.fingerprint == fingerprint
        )
        return {row.id: bytes(row.vector) for row in self._rows(query, chunks.c.id, chunk_ids)}

    def pending(self, tenant: str, namespace: str, fingerprint: str, *, limit: int) -> list[Chunk]:
        query = select(*_CHUNK).where(*_in(chunks, tenant, namespace), chunks.c.fingerprint != fingerprint)
        with self._reading() as connection:
            return [Chunk(*row) for row in connection.execute(query.limit(limit))]

    def put_vectors(self, tenant: str, namespace: str, fingerprint: str, vectors: Mapping[str, bytes]) -> Future[int]:
        shelf = Shelf(namespace, fingerprint=fingerprint)
        return self._commits.submit(partial(self._writer.put_vectors, tenant=tenant, shelf=shelf, vectors=vectors))

    def claim(self, tenant: str, namespace: str, fingerprint: str, *, replace: bool = False) -> Future[Shelf]:
        shelf = Shelf(namespace, fingerprint=fingerprint)
        return self._commits.submit(partial(self._writer.claim, tenant=tenant, shelf=shelf, replace=replace))

    def _rows(self, query: Select[Any], column: ColumnElement[str], values: Sequence[str] | None) -> list[Any]:
        """Rows whose column has one of the values; all rows when None."""
        with self._reading() as connection:
            if values is None:
                return list(connection.execute(query))
            return [row for some in parts(values) for row in connection.execute(query.where(column.in_(some)))]


def _in(table: Table, tenant: str, namespace: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.tenant == tenant, table.c.namespace == namespace
