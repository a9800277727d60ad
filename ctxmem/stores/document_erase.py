"""Erasure of documents: with their user, or with the session they belong to.

A job that commits with it takes their vectors off the disk, where an index keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, select, update

from ctxmem.stores.document_schema import chunks, documents, shelves
from ctxmem.stores.document_writer import off_disk
from ctxmem.stores.jobs import JobWriter
from ctxmem.stores.memory_erase import Gone
from ctxmem.stores.reads import chunks as parts


def of_user(connection: Connection, tenant: str, user_id: str, gone: Gone) -> None:
    """Erase every document of a user, with chunks and vectors."""
    _erase(connection, tenant, documents.c.user_id == user_id, gone)


def of_sessions(connection: Connection, tenant: str, session_ids: Sequence[str], gone: Gone) -> None:
    """Erase the documents that belong to the sessions."""
    _erase(connection, tenant, documents.c.session_id.in_(session_ids), gone)


def _erase(connection: Connection, tenant: str, whose: ColumnElement[bool], gone: Gone) -> None:
    found: dict[str, list[str]] = {}
    query = select(documents.c.namespace, documents.c.id).where(documents.c.tenant == tenant, whose)
    for namespace, document_id in connection.execute(query):
        found.setdefault(namespace, []).append(document_id)
    for namespace, ids in found.items():
        head = (shelves.c.tenant == tenant, shelves.c.namespace == namespace)
        connection.execute(update(shelves).where(*head).values(version=shelves.c.version + 1))
        for some in parts(ids):
            gone.ids.update(some)
            gone.delete(chunks, (chunks.c.namespace == namespace) & chunks.c.document_id.in_(some))
            gone.delete(documents, (documents.c.namespace == namespace) & documents.c.id.in_(some))
    JobWriter(connection.dialect).add(connection, tenant, map(off_disk, found))
