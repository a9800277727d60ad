"""The truth in SQL: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from ctxmem.errors import InvalidInput, StoreError
from ctxmem.ports import Store
from ctxmem.records import Batch, Branch, Erasure, Event, LedgerEntry, RequestRecord, Session
from ctxmem.stores import artifacts, erase, migrate, reads, scrub
from ctxmem.stores.batches import BatchWriter
from ctxmem.stores.checkpoints import SqlCheckpoints
from ctxmem.stores.documents import SqlDocuments
from ctxmem.stores.engine import open_engine
from ctxmem.stores.faults import mapped
from ctxmem.stores.folders import SqlFolders
from ctxmem.stores.jobs import SqlJobs
from ctxmem.stores.memories import SqlMemories
from ctxmem.stores.schema import HEAD
from ctxmem.stores.slots import SqlSlots
from ctxmem.stores.writer import Commits, Database, GroupCommit, PooledCommit

T = TypeVar("T")

HEALTH_SECONDS = 2.0
"""How long `health` waits for a write."""

_LOG = logging.getLogger(__name__)


class SqlStore(Store):
    """A `Store` over one database. Safe for threads; several processes may share the database."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open the database.

        Args:
            url: `sqlite:///path` or `postgresql://…`.
            create: make the tables, or bring them up to date.

        Raises:
            ConfigError: the URL is wrong or its driver is missing.
            StoreError: the database cannot be opened.
        """
        self._engine = open_engine(url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._readers = (
            self._engine if self._is_sqlite else self._engine.execution_options(isolation_level="AUTOCOMMIT")
        )
        with mapped():
            if create:
                migrate.upgrade(self._engine)
            else:
                self._engine.connect().close()
        self._commits: Commits = GroupCommit(self._engine) if self._is_sqlite else PooledCommit(self._engine)
        self._batches = BatchWriter(self._engine.dialect)
        database = Database(self._engine.dialect, self._commits, self._reading)
        self.jobs = SqlJobs(database)
        self.documents: SqlDocuments = SqlDocuments(database)
        self.checkpoints = SqlCheckpoints(database)
        self.folders = SqlFolders(database)
        self.slots = SqlSlots(database)
        self.memories: SqlMemories = SqlMemories(database)

    def write(self, tenant: str, batch: Batch) -> Future[Batch]:
        return self._commits.submit(partial(self._batches.write, tenant=tenant, batch=batch))

    def session(self, tenant: str, session_id: str) -> Session | None:
        with self._reading() as connection:
            return reads.session(connection, tenant, session_id)

    def sessions(self, tenant: str, *, user_id: str | None = None, limit: int = 100, after: str = "") -> list[Session]:
        with self._reading() as connection:
            return reads.sessions(connection, tenant, user_id, limit, after)

    def branch(self, tenant: str, session_id: str, number: int) -> Branch | None:
        with self._reading() as connection:
            return reads.branch(connection, tenant, session_id, number)

    def known(self, tenant: str, chains: Sequence[bytes], session_id: str | None = None) -> Event | None:
        with self._reading() as connection:
            return reads.known(connection, tenant, chains, session_id)

    def event(self, tenant: str, event_id: str) -> Event | None:
        with self._reading() as connection:
            return reads.event(connection, tenant, event_id)

    def events(self, tenant: str, session_id: str, *, after_seq: int = -1, limit: int = 1000) -> list[Event]:
        with self._reading() as connection:
            return reads.events(connection, tenant, session_id, after_seq, limit)

    def history(
        self,
        tenant: str,
        session_id: str,
        branch: int,
        *,
        start: int = 0,
        stop: int | None = None,
        origin: str | None = None,
    ) -> list[Event]:
        with self._reading() as connection:
            part = reads.Stretch(start, stop, origin)
            return reads.history(connection, tenant, session_id, branch, part)

    def events_by_id(self, tenant: str, event_ids: Sequence[str]) -> list[Event]:
        with self._reading() as connection:
            return reads.events_by_id(connection, tenant, event_ids)

    def ledger(self, tenant: str, session_id: str, branch: int, *, turn: int | None = None) -> dict[str, LedgerEntry]:
        with self._reading() as connection:
            return reads.ledger(connection, tenant, session_id, branch, turn)

    def request(self, tenant: str, request_id: str) -> RequestRecord | None:
        with self._reading() as connection:
            return reads.request(connection, tenant, request_id)

    def requests(
        self, tenant: str, *, session_id: str | None = None, limit: int = 100, after: str = ""
    ) -> list[RequestRecord]:
        with self._reading() as connection:
            return reads.requests(connection, tenant, session_id, limit, after)

    def put_artifact(self, tenant: str, content: bytes, *, session_id: str = "") -> str:
        put = partial(self._batches.artifacts.put, tenant=tenant, content=content, session_id=session_id)
        return self._done(put)

    def artifact(self, tenant: str, sha256: str) -> bytes | None:
        with self._reading() as connection:
            return artifacts.read(connection, tenant, sha256)

    def erase_session(self, tenant: str, session_id: str) -> Erasure:
        erasure = self._done(partial(erase.erase_session, tenant=tenant, session_id=session_id))
        self._scrub(rewrite=False)
        return erasure

    def erase_user(self, tenant: str, user_id: str) -> Erasure:
        if not user_id:
            raise InvalidInput("say whose sessions to erase; those without a user are erased one by one")
        erasure = self._done(partial(erase.erase_user, tenant=tenant, user_id=user_id))
        self._scrub(rewrite=True)
        return erasure

    def health(self) -> Mapping[str, str]:
        with self._reading() as connection:
            found = migrate.revision(connection)
        if found is None:
            return {"write": "no tables", "migrations": "none", "dialect": self._engine.dialect.name}
        state = "head" if found == HEAD else f"{found}, this ctxmem needs {HEAD}"
        return {"write": self._try_write(), "migrations": state, "dialect": self._engine.dialect.name}

    def close(self) -> None:
        self._commits.close()
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with mapped(), self._readers.connect() as connection:
            yield connection

    def _done(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction and wait until it is on the disk."""
        return self._commits.submit(work).result()

    def _try_write(self) -> str:
        """`ok` when a write reaches the disk, else why not."""
        try:
            self._commits.submit(_touch).result(HEALTH_SECONDS)
        except TimeoutError:
            return f"not done after {HEALTH_SECONDS:g} s"
        except StoreError as error:
            return str(error)
        return "ok"

    def _scrub(self, *, rewrite: bool) -> None:
        """Get erased words out of SQLite's files; the rows are gone whether or not that works."""
        if self._is_sqlite:
            try:
                with self._reading() as connection:
                    scrub.scrub(connection, rewrite=rewrite)
            except StoreError as error:
                _LOG.warning("erased words may still stand in unused space of the database: %s", error)


def _touch(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
