"""SQL that is compiled once. A write then costs the driver's time and little more; rows are dicts by column name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import Dialect, Select, Table, bindparam, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.sql.dml import UpdateBase


def insert(dialect: Dialect, table: Table) -> str:
    """Insert a row."""
    return _sql(dialect, plain_insert(table))


def insert_new(dialect: Dialect, table: Table, key: Sequence[str] = ()) -> str:
    """Insert a row unless its key, the primary one if no other is named, is there; the row count says which."""
    unique = key or table.primary_key
    return _sql(dialect, _dialect_insert(dialect, table).on_conflict_do_nothing(index_elements=unique))


def upsert(dialect: Dialect, table: Table) -> str:
    """Insert a row, or replace the one with its key."""
    new = _dialect_insert(dialect, table)
    rest = {column.name: new.excluded[column.name] for column in table.c if not column.primary_key}
    return _sql(dialect, new.on_conflict_do_update(index_elements=table.primary_key, set_=rest))


def insert_new_from(dialect: Dialect, table: Table) -> Callable[[Select[Any]], UpdateBase]:
    """Insert the rows of a query, all columns in order, except those whose primary key is there."""
    new = _dialect_insert(dialect, table)
    names = [column.name for column in table.c]

    def filled(rows: Select[Any]) -> UpdateBase:
        done: UpdateBase = new.from_select(names, rows).on_conflict_do_nothing(index_elements=table.primary_key)
        return done

    return filled


def compare_and_set(dialect: Dialect, table: Table, compared: str) -> str:
    """Replace a row if its column `compared` is still `:expected`; the row count says whether it was."""
    keys = [column == bindparam(f"own_{column.name}") for column in table.primary_key]
    names = [column.name for column in table.c if not column.primary_key]
    return _sql(dialect, update(table).where(*keys, table.c[compared] == bindparam("expected")), names)


def _dialect_insert(dialect: Dialect, table: Table) -> Any:
    """The dialect's own INSERT, which knows ON CONFLICT; only the dialect in use is imported."""
    return import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)


def _sql(dialect: Dialect, statement: UpdateBase, columns: list[str] | None = None) -> str:
    return str(statement.compile(dialect=dialect, column_keys=columns))
