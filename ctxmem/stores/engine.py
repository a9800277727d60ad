"""Connections: one engine for a database URL, set up so that reads never wait for writes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from ctxmem.errors import ConfigError, StoreError

LOCK_SECONDS = 5.0
"""How long a connection waits for SQLite's write lock."""
POOL_SECONDS = 1.0
"""How long a caller waits for a free connection."""
POOL = 8
"""Connections kept, and as many more under load."""

_SQLITE_PRAGMAS = (
    "PRAGMA synchronous=FULL",  # a commit is on the disk when it returns
    "PRAGMA cache_size=-1024",  # KiB for each connection; the system's page cache does the rest
    "PRAGMA journal_size_limit=16777216",  # bytes the WAL file shrinks to after a checkpoint
    "PRAGMA secure_delete=ON",  # what is erased is overwritten
)


def open_engine(url: str) -> Engine:
    """An engine; SQLite's connections commit each statement by themselves unless a transaction is opened.

    Args:
        url: `sqlite:///path` or `postgresql://…`.

    Raises:
        ConfigError: the URL is not one of these, or the driver is not installed.
        StoreError: the folder of the file does not exist.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError(f"not a database URL: {error}") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed)
    if backend in ("postgresql", "postgres"):
        return _postgres(parsed)
    raise ConfigError(f"unknown database {backend!r}; use sqlite:///path or postgresql://…")


def begin_immediate(connection: Connection) -> None:
    """Take SQLite's write lock now, so that a transaction cannot find itself too late to write."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """Make all reads on a connection that is in autocommit see the database as of one moment."""
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN" if is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK")


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError("an SQLite database must be a plain file, such as sqlite:///ctxmem.db")
    path = Path(url.database).expanduser()
    if not path.parent.is_dir():
        raise StoreError(f"the folder of the database does not exist: {path.parent}")
    engine = create_engine(
        url.set(drivername="sqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",
        paramstyle="named",
        pool_size=POOL,
        max_overflow=POOL,
        pool_timeout=POOL_SECONDS,
        connect_args={"timeout": LOCK_SECONDS},
    )
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: sqlite3.Connection, _: Any) -> None:
    _use_wal(connection)
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(pragma)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to write-ahead logging; SQLite does not wait for others by itself here."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreError(f"SQLite cannot keep a write-ahead log here (journal mode {mode!r})")
        return


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=POOL,
            max_overflow=POOL,
            pool_timeout=POOL_SECONDS,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={"connect_timeout": 5},
        )
    except ModuleNotFoundError as error:
        raise ConfigError('PostgreSQL needs its driver: pip install "ctxmem[postgres]"') from error
