"""Folders in SQL: each write is one transaction that begins with the folder's revision, which orders the writers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from sqlalchemy import Connection, collate, delete, select, update

from ctxmem.errors import Conflict
from ctxmem.ports import Change, Folder, Folders
from ctxmem.stores.folder_schema import folder_items, folders
from ctxmem.stores.memory_erase import Gone
from ctxmem.stores.reads import chunks
from ctxmem.stores.statements import insert_new, upsert
from ctxmem.stores.writer import Database

_KEYED = "\x01"
"""Begins the keys of what was appended, so that none is a caller's own."""


class SqlFolders(Folders):
    """`Folders` beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._make = insert_new(database.dialect, folders)
        self._put = upsert(database.dialect, folder_items)
        self._collation = "C" if database.dialect.name == "postgresql" else "BINARY"
        self._commits = database.commits
        self._reading = database.reading

    def folder(
        self, tenant: str, name: str, *, last: int | None = None, key: str | None = None, prefix: str = ""
    ) -> Folder:
        table = folder_items
        order = collate(table.c.key, self._collation)
        query = select(table.c.key, table.c.value).where(table.c.tenant == tenant, table.c.name == name)
        query = query.where(table.c.key == key) if key is not None else query
        query = query.where(table.c.key.startswith(prefix, autoescape=True)) if prefix else query
        query = query.order_by(order) if last is None else query.order_by(order.desc()).limit(last)
        with self._reading() as connection:
            revision = _revision(connection, tenant, name)  # first: what is read after it is never older
            rows = connection.execute(query).all() if revision else []
        ordered = rows if last is None else reversed(rows)
        return Folder(revision, {row.key: bytes(row.value) for row in ordered if row.key.startswith(prefix)})

    def change(self, tenant: str, name: str, change: Change) -> Future[int]:
        return self._commits.submit(partial(self._change, tenant=tenant, name=name, change=change))

    def names(self, tenant: str, *, prefix: str = "", user_id: str | None = None) -> list[str]:
        table = folders
        query = select(table.c.name).where(table.c.tenant == tenant, table.c.name.startswith(prefix, autoescape=True))
        query = query.where(table.c.user_id == user_id) if user_id is not None else query
        with self._reading() as connection:
            found = connection.scalars(query.order_by(collate(table.c.name, self._collation)))
            return [name for name in found if name.startswith(prefix)]  # LIKE knows no case in SQLite

    def _change(self, connection: Connection, tenant: str, name: str, change: Change) -> int:
        revision = self._moved(connection, tenant, name, change)
        mine = (folder_items.c.tenant == tenant, folder_items.c.name == name)
        if change.clear:
            connection.execute(delete(folder_items).where(*mine))
        for some in chunks(list(change.delete)):
            connection.execute(delete(folder_items).where(*mine, folder_items.c.key.in_(some)))
        added = {f"{_KEYED}{revision:016x}{i:08x}": value for i, value in enumerate(change.append)}
        for key, value in {**change.put, **added}.items():
            row = {"tenant": tenant, "name": name, "key": key, "value": value}
            connection.exec_driver_sql(self._put, row)
        return revision

    def _moved(self, connection: Connection, tenant: str, name: str, change: Change) -> int:
        """The folder's next revision, taken.

        Raises:
            Conflict: it is at another one than expected.
        """
        if not change.expected:
            row = {"tenant": tenant, "name": name, "user_id": change.user_id, "revision": 1}
            if connection.exec_driver_sql(self._make, row).rowcount == 1:
                return 1
        if change.expected != 0:
            moved = update(folders).where(folders.c.tenant == tenant, folders.c.name == name)
            moved = moved.where(folders.c.revision == change.expected) if change.expected is not None else moved
            if connection.execute(moved.values(revision=folders.c.revision + 1)).rowcount == 1:
                return _revision(connection, tenant, name)
        raise Conflict(f"folder {name!r} is at another revision than {change.expected}")


def _revision(connection: Connection, tenant: str, name: str) -> int:
    query = select(folders.c.revision).where(folders.c.tenant == tenant, folders.c.name == name)
    return int(connection.scalar(query) or 0)


def erase(connection: Connection, tenant: str, user_id: str, gone: Gone) -> None:
    """Erase every folder of a user."""
    mine: Any = select(folders.c.name).where(folders.c.tenant == tenant, folders.c.user_id == user_id)
    names: Sequence[str] = list(connection.scalars(mine))
    for some in chunks(names):
        gone.delete(folder_items, folder_items.c.name.in_(some))
        gone.delete(folders, folders.c.name.in_(some))
    gone.ids.update(names)
