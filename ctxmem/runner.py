"""Does the jobs of the outbox: one at a time, under a lease that is renewed while the work goes on.

A handler that fails is tried again later, with growing pauses, and given up on after some attempts. A process that dies
loses nothing: its lease ends, and another takes the job up where its last note says. So a handler must bear being run
again; what it noted is in `claim.job.progress`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from typing import Any

from ctxmem.errors import Conflict, StoreError
from ctxmem.job import Claim
from ctxmem.ports import Jobs

Progress = Mapping[str, Any]
"""JSON values from which a handler can go on."""

Note = Callable[[Progress], None]
"""Takes a handler's progress; durable when it returns. Raises `Conflict` when the job is somebody else's by now."""

Handler = Callable[[Claim, Note], None]
"""Does the work of one job. An error it raises is a failed attempt."""

LONGEST_PAUSE = 600.0
"""Seconds between two attempts, at most."""
KEPT = 24 * 3600.0
"""Seconds that a job that is done can still be looked at."""

_log = logging.getLogger("ctxmem")


@dataclass(slots=True)
class Runner:
    """Takes jobs up and has them done.

    Attributes:
        jobs: the outbox.
        handlers: by kind, what does the work; other kinds are left to others.
        lease: seconds that a job is held without a sign of life.
        idle: seconds between two looks at an empty outbox.
        attempts: after so many a job has failed for good.
    """

    jobs: Jobs
    handlers: Mapping[str, Handler]
    lease: float = 60.0
    idle: float = 0.5
    attempts: int = 5
    _noted: dict[str, Progress] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Do what comes until told to stop; the job under way is finished first.

        A database that is out of reach is waited for.
        """
        tidy = 0.0
        while not stop.is_set():
            try:
                if time.monotonic() > tidy:
                    self.jobs.forget(before=time.time() - KEPT)
                    tidy = time.monotonic() + 3600
                if not self.step():
                    stop.wait(self.idle)
            except StoreError as error:
                _log.warning("the outbox is out of reach: %s", error)
                stop.wait(self.idle * 4)

    def drain(self, most: int = 1_000_000) -> int:
        """Do what is due now; returns how many jobs that were."""
        done = 0
        while done < most and self.step():
            done += 1
        return done

    def step(self) -> bool:
        """Do the job that is due the longest; whether there was one.

        Raises:
            StoreError: the database is out of reach.
        """
        claim = self.jobs.claim(tuple(self.handlers), lease=self.lease)
        if claim is None:
            return False
        if claim.job.attempts > self.attempts:  # its last attempt ended with its process
            self.jobs.fail(claim, claim.job.error or "its worker died in every attempt", retry_in=None)
            return True
        self._noted = {claim.job.id: claim.job.progress}
        error = self._attempt(claim)
        if error is None:
            self.jobs.done(claim, progress=self._noted[claim.job.id])
            return True
        if not isinstance(error, Exception):
            raise error
        last = claim.job.attempts >= self.attempts
        _log.warning("job %s (%s) failed in attempt %d: %r", claim.job.id, claim.job.kind, claim.job.attempts, error)
        pause = None if last else min(LONGEST_PAUSE, 2.0**claim.job.attempts)
        self.jobs.fail(claim, f"{type(error).__name__}: {error}", retry_in=pause)
        return True

    def _attempt(self, claim: Claim) -> BaseException | None:
        """Run the handler in a thread and renew the lease meanwhile; returns what it raised."""
        with ThreadPoolExecutor(1, thread_name_prefix="ctxmem-job") as pool:
            future: Future[None] = pool.submit(self.handlers[claim.job.kind], claim, self._note(claim))
            while True:
                try:
                    return future.exception(self.lease / 3)
                except StillRunning:
                    self.jobs.keep(claim, lease=self.lease, progress=self._noted[claim.job.id])

    def _note(self, claim: Claim) -> Note:
        def note(progress: Progress) -> None:
            self._noted[claim.job.id] = dict(progress)
            if not self.jobs.keep(claim, lease=self.lease, progress=progress):
                raise Conflict(f"job {claim.job.id} was taken up by another worker")

        return note
