"""The outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ctxmem.job import Claim, Job, JobState


class Jobs(Protocol):
    """The outbox: work that outlives the process that caused it. Workers of all tenants share it."""

    def put(self, tenant: str, added: Sequence[Job]) -> Future[None]:
        """Queue jobs, but none whose key is queued already; durable when the future resolves."""
        ...

    def claim(self, kinds: Sequence[str], *, lease: float) -> Claim | None:
        """Take up the job that is due the longest, for `lease` seconds; None when none is."""
        ...

    def keep(self, claim: Claim, *, lease: float, progress: Mapping[str, Any]) -> bool:
        """Note progress and hold the job for `lease` more seconds; False when somebody else has it now."""
        ...

    def done(self, claim: Claim, *, progress: Mapping[str, Any]) -> bool:
        """Note that the job is done; False when somebody else has it now."""
        ...

    def fail(self, claim: Claim, error: str, *, retry_in: float | None) -> bool:
        """Note why it failed, and queue it again in so many seconds, or never when None."""
        ...

    def job(self, tenant: str, job_id: str) -> Job | None: ...

    def jobs(self, tenant: str, *, state: JobState | None = None, limit: int = 100, after: str = "") -> list[Job]:
        """Jobs by id after `after`."""
        ...

    def forget(self, *, before: float) -> int:
        """Delete what was done and queued before then, seconds since 1970; returns how many."""
        ...
