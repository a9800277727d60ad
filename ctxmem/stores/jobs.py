"""The outbox in SQL: jobs commit with what caused them, and are handed out one lease at a time.

A lease that ends gives the job to the next worker. Whoever lost one cannot change the job any more: every change names
the attempt it was made in. So each job is done at least once, and noted as done once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect, Select, Update, and_, delete, or_, select, update

from ctxmem.job import Claim, Job, JobState
from ctxmem.ports import Jobs
from ctxmem.stores.job_schema import jobs
from ctxmem.stores.rows import json_text
from ctxmem.stores.statements import insert_new
from ctxmem.stores.writer import Database

_NAMES = tuple(field.name for field in fields(Job))
_COLUMNS = tuple(jobs.c[name] for name in _NAMES)
MOST_ERROR = 2000
"""Characters of an error that are kept."""


class SqlJobs(Jobs):
    """The outbox beside a `SqlStore`, over its connections and its one writer."""

    def __init__(self, database: Database) -> None:
        self._writer = JobWriter(database.dialect)
        self._commits = database.commits
        self._reading = database.reading

    def put(self, tenant: str, added: Sequence[Job]) -> Future[None]:
        return self._commits.submit(partial(self._writer.add, tenant=tenant, added=added))

    def claim(self, kinds: Sequence[str], *, lease: float) -> Claim | None:
        with self._reading() as connection:
            if connection.execute(_due(kinds, time.time()).limit(1)).first() is None:
                return None
        return self._commits.submit(partial(_claim, kinds=kinds, lease=lease)).result()

    def keep(self, claim: Claim, *, lease: float, progress: Mapping[str, Any]) -> bool:
        return self._moved(_held(claim).values(run_at=time.time() + lease, progress=dict(progress)))

    def done(self, claim: Claim, *, progress: Mapping[str, Any]) -> bool:
        return self._moved(_held(claim).values(state="done", progress=dict(progress), error=""))

    def fail(self, claim: Claim, error: str, *, retry_in: float | None) -> bool:
        again = retry_in is not None
        state = "queued" if again else "failed"
        run_at = time.time() + (retry_in or 0.0)
        return self._moved(_held(claim).values(state=state, error=error[:MOST_ERROR], run_at=run_at))

    def job(self, tenant: str, job_id: str) -> Job | None:
        with self._reading() as connection:
            row = connection.execute(select(*_COLUMNS).where(jobs.c.tenant == tenant, jobs.c.id == job_id)).first()
        return Job(*row) if row is not None else None

    def jobs(self, tenant: str, *, state: JobState | None = None, limit: int = 100, after: str = "") -> list[Job]:
        query = select(*_COLUMNS).where(jobs.c.tenant == tenant, jobs.c.id > after)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._reading() as connection:
            return [Job(*row) for row in connection.execute(query.order_by(jobs.c.id).limit(limit))]

    def forget(self, *, before: float) -> int:
        old = delete(jobs).where(jobs.c.state == "done", jobs.c.at < before)
        return self._commits.submit(lambda connection: int(connection.execute(old).rowcount)).result()

    def _moved(self, change: Update) -> bool:
        return self._commits.submit(lambda connection: connection.execute(change).rowcount == 1).result()


class JobWriter:
    """Queues jobs in one dialect of SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self._insert = insert_new(dialect, jobs, ("tenant", "kind", "key"))

    def add(self, connection: Connection, tenant: str, added: Iterable[Job]) -> None:
        """Insert jobs, but none whose key is queued already."""
        for one in added:
            row = {name: getattr(one, name) for name in _NAMES}
            row |= {"tenant": tenant, "payload": json_text(one.payload), "progress": json_text(one.progress)}
            connection.exec_driver_sql(self._insert, row)


def _due(kinds: Sequence[str], now: float) -> Select[Any]:
    """Jobs that may be taken up: queued ones whose time has come, running ones whose lease has ended."""
    open_ = or_(jobs.c.state == "queued", jobs.c.state == "running")
    ready = and_(open_, jobs.c.run_at <= now, jobs.c.kind.in_(kinds))
    return select(jobs.c.tenant, *_COLUMNS).where(ready).order_by(jobs.c.run_at, jobs.c.id)


def _claim(connection: Connection, kinds: Sequence[str], lease: float) -> Claim | None:
    now = time.time()
    row = connection.execute(_due(kinds, now).limit(1).with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    found = Job(*row[1:])
    taken = {"state": "running", "attempts": found.attempts + 1, "run_at": now + lease, "key": None}
    mine = and_(jobs.c.tenant == row.tenant, jobs.c.id == found.id, jobs.c.attempts == found.attempts)
    if connection.execute(update(jobs).where(mine).values(taken)).rowcount != 1:
        return None
    return Claim(row.tenant, Job(**{name: getattr(found, name) for name in _NAMES} | taken))


def _held(claim: Claim) -> Update:
    """The claimed job, as long as nobody else took it up since."""
    return update(jobs).where(
        jobs.c.tenant == claim.tenant,
        jobs.c.id == claim.job.id,
        jobs.c.attempts == claim.job.attempts,
        jobs.c.state == "running",
    )
