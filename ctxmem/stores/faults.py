"""Foreign errors of the databases, turned into ctxmem's own at the border. Nothing above `stores` sees SQLAlchemy's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from ctxmem.errors import Conflict, CtxmemError, InvalidInput, StoreError, StoreFull

_UNUSABLE = StoreError, "the database cannot be used"
_FULL = StoreFull, "no room left in the database"
_DAMAGED = StoreError, "the database file is damaged; restore a backup, or move it away to start anew"
_RACE = Conflict, "another writer came first"

_MEANINGS: dict[int | str, tuple[type[CtxmemError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    "53100": _FULL,  # disk_full
    "40001": _RACE,  # serialization_failure
    "40P01": _RACE,  # deadlock_detected
    "54000": (InvalidInput, "cannot be stored"),  # program_limit_exceeded: an id too long to index
}
"""What a driver's code means: SQLite's primary result codes, PostgreSQL's SQLSTATEs."""


@contextmanager
def mapped() -> Iterator[None]:
    """Raise ctxmem's error for any error of a database inside the block.

    Raises:
        Conflict: a row was there already, or the database chose this writer to give way.
        InvalidInput: a value cannot be stored.
        StoreFull: no room.
        StoreError: out of reach, locked, read-only, damaged.
    """
    try:
        yield
    except CtxmemError:
        raise
    except exc.SQLAlchemyError as error:
        raise translated(error) from error
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"cannot be stored: {error}") from error


def translated(error: exc.SQLAlchemyError) -> CtxmemError:
    """The error of ours that a foreign one means."""
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"already in the log: {error.orig}")
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorcode", 0) or 0
        return _by_code(code, error)
    if isinstance(error, exc.StatementError):
        return InvalidInput(f"cannot be stored: {error.orig or error}")
    return StoreError(f"the database cannot be used: {error}")


def _by_code(code: int | str, error: exc.DBAPIError) -> CtxmemError:
    """The error that a driver's code means; SQLite's codes are numbers, SQLSTATEs are strings."""
    primary = code & 0xFF if isinstance(code, int) else code
    bad_value = isinstance(error, (exc.DataError, exc.InterfaceError))
    kind, what = _MEANINGS.get(primary, (InvalidInput, "cannot be stored") if bad_value else _UNUSABLE)
    return kind(f"{what}: {error.orig}")
