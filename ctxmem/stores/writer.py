"""How writes reach the disk. Both ways give futures that resolve once the write survives `kill -9`.

SQLite has one writer at a time, and most of a commit is waiting for the disk: `GroupCommit` lets one thread commit
whatever has queued up meanwhile in one transaction, each piece of work in a savepoint of its own. PostgreSQL commits
groups by itself: `PooledCommit` gives each piece of work a transaction in the caller's thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from ctxmem.errors import CtxmemError, StoreError
from ctxmem.stores.engine import begin_immediate
from ctxmem.stores.faults import mapped

T = TypeVar("T")
Work = Callable[[Connection], T]

QUEUED = 1024
"""Pieces of work that may wait."""
GROUP = 64
"""Pieces of work in one commit, at most."""
PATIENCE = 1.0
"""Seconds that a caller waits for room in the queue."""


class Commits(Protocol):
    """Runs work in transactions."""

    def submit(self, work: Work[T]) -> Future[T]:
        """Run the work, all or nothing; the future resolves when it is on the disk."""
        ...

    def close(self) -> None:
        """Finish what was submitted; refuse more."""
        ...


@dataclass(slots=True)
class _Piece(Generic[T]):
    """One piece of work, and what came of it before the commit."""

    work: Work[T]
    future: Future[T] = field(default_factory=Future)
    result: T | None = None
    error: CtxmemError | None = None

    def run(self, connection: Connection) -> None:
        """Do the work in a savepoint, keeping its result or why it was undone.

        Raises:
            SQLAlchemyError: the database failed, and with it the whole transaction.
        """
        connection.exec_driver_sql("SAVEPOINT piece")
        try:
            with mapped():
                self.result = self.work(connection)
        except CtxmemError as error:
            if isinstance(error, StoreError):
                raise
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
        self._waiting: deque[_Piece[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = self._start()

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue the work.

        Raises:
            StoreError: the queue is full, or closed.
        """
        piece = _Piece(work)
        with self._changed:
            has_room = self._changed.wait_for(lambda: self._closed or len(self._waiting) < QUEUED, PATIENCE)
            if self._closed:
                raise StoreError("the store is closed")
            if not has_room:
                raise StoreError(f"{QUEUED} writes are waiting already: the disk is too slow")
            if not self._thread.is_alive():
                self._thread = self._start()
            self._waiting.append(piece)
            self._changed.notify_all()
        return piece.future

    def close(self) -> None:
        """Commit what is queued, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="ctxmem-writer", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while group := self._take():
            try:
                with mapped():
                    self._commit(group)
            except CtxmemError as error:
                _fail(group, error)
            finally:  # an error nobody foresaw ends the thread, but leaves no caller waiting
                _fail(group, StoreError("the writer broke"))

    def _take(self) -> list[_Piece[Any]]:
        """The next group; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            self._changed.notify_all()
        return group

    def _commit(self, group: list[_Piece[Any]]) -> None:
        with self._engine.connect() as connection:
            try:
                begin_immediate(connection)
                for piece in group:
                    piece.run(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.invalidate()  # closing it undoes the transaction, whatever state it is in
                raise
        for piece in group:
            piece.resolve()


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
