"""How writes reach the disk. Both ways give futures that resolve once the write survives `kill -9`.

SQLite has one writer at a time, and most of a commit is waiting for the disk: `GroupCommit` lets one thread commit
whatever has queued up meanwhile in one transaction, each piece of work in a savepoint of its own. PostgreSQL commits
groups by itself: `PooledCommit` gives each piece of work a transaction in the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Engine

from ctxmem.errors import CtxmemError, StoreError
from ctxmem.stores.engine import begin_immediate
from ctxmem.stores.faults import mapped

T = TypeVar("T")
Work = Callable[[Connection], T]

QUEUED = 1024
"""Pieces of work that may wait."""
GROUP = 64
"""Pieces of work in one commit, at most."""


class Commits(Protocol):
    """Runs work in transactions."""

    def submit(self, work: Work[T]) -> Future[T]:
        """Run the work, all or nothing; the future resolves when it is on the disk."""
        ...

    def close(self) -> None:
        """Finish what was submitted; refuse more."""
        ...


@dataclass(frozen=True, slots=True)
class Database:
    """An open database, as the parts of a store share it.

    Attributes:
        dialect: of its SQL.
        commits: runs writes.
        reading: gives a connection to read on.
    """

    dialect: Dialect
    commits: Commits
    reading: Callable[[], AbstractContextManager[Connection]]


@dataclass(slots=True)
class _Piece(Generic[T]):
    """One piece of work, and what came of it before the commit."""

    work: Work[T]
    future: Future[T] = field(default_factory=Future)
    result: T | None = None
    error: CtxmemError | None = None

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # a caller that goes away cannot take its write back

    def run(self, connection: Connection) -> None:
        """Do the work, keeping its result or why it was undone.

        Raises:
            StoreError: the database failed, and with it the whole transaction.
        """
        connection.exec_driver_sql("SAVEPOINT piece")
        try:
            with mapped():
                self.result = self.work(connection)
        except StoreError:
            raise
        except CtxmemError as error:
            connection.exec_driver_sql("ROLLBACK TO piece")
            self.error = error
        connection.exec_driver_sql("RELEASE piece")

    def resolve(self) -> None:
        """Tell the caller."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class GroupCommit:
    """SQLite's one writer in this process. A failed commit fails its group only: the next one starts afresh."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: SimpleQueue[_Piece[Any] | None] = SimpleQueue()
        self._entry = threading.Lock()
        self._closed = False
        self._connection: Connection | None = None  # the thread's own
        self._thread = self._start()

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue the work.

        Raises:
            StoreError: the queue is full, or closed.
        """
        piece = _Piece(work)
        with self._entry:
            if self._closed:
                raise StoreError("the store is closed")
            if self._waiting.qsize() >= QUEUED:
                raise StoreError(f"{QUEUED} writes are waiting already: the disk is too slow")
            if not self._thread.is_alive():
                self._thread = self._start()
            self._waiting.put(piece)
        return piece.future

    def close(self) -> None:
        """Commit what is queued, then end the thread."""
        with self._entry:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="ctxmem-writer", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        try:
            while (piece := self._waiting.get()) is not None:
                self._settle([piece, *self._queued()])
        finally:
            self._disconnect()

    def _queued(self) -> Iterator[_Piece[Any]]:
        """What has queued up meanwhile, as far as it fits into the group."""
        for _ in range(min(GROUP - 1, self._waiting.qsize())):
            piece = self._waiting.get()
            if piece is None:
                self._waiting.put(None)  # for `_serve`, which ends with it
                return
            yield piece

    def _settle(self, group: list[_Piece[Any]]) -> None:
        """Commit a group and tell the callers."""
        try:
            with mapped():
                self._commit(group)
        except CtxmemError as error:
            _fail(group, error)
        finally:  # an error nobody foresaw ends the thread, but leaves no caller waiting
            _fail(group, StoreError("the writer broke"))

    def _commit(self, group: list[_Piece[Any]]) -> None:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            begin_immediate(self._connection)
            if len(group) == 1:  # its failure undoes the transaction, which is all there is: no savepoint
                group[0].result = group[0].work(self._connection)
            else:
                for piece in group:
                    piece.run(self._connection)
            self._connection.exec_driver_sql("COMMIT")
        except BaseException:
            self._disconnect()
            raise
        for piece in group:
            piece.resolve()

    def _disconnect(self) -> None:
        """Close the connection, which undoes its transaction whatever state that is in."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


class PooledCommit:
    """A transaction for each piece of work, in the caller's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, work: Work[T]) -> Future[T]:
        """Do the work now; the future is resolved when this returns."""
        future: Future[T] = Future()
        try:
            with mapped():
                with self._engine.begin() as connection:
                    result = work(connection)
                future.set_result(result)
        except CtxmemError as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing waits here."""


def _fail(group: list[_Piece[Any]], error: CtxmemError) -> None:
    for piece in group:
        if not piece.future.done():
            piece.future.set_exception(error)
