"""Work that is done after the answer: it is written down with the data that caused it, and outlives every process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ctxmem.ids import new_id

JobState = Literal["queued", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work in the outbox.

    Attributes:
        id: `jb_` and 32 hex digits, time-ordered.
        kind: whose work it is; a worker takes the kinds it has a handler for.
        payload: what the handler needs to know, JSON values.
        session_id: the session it belongs to, with which it is erased; empty for none.
        user_id: the same for a user.
        key: until the job is taken up, another of its kind and key is not added; None for no such rule, or once it was.
        state: `queued`, `running`, `done`, or `failed` for good.
        attempts: how often it was taken up.
        progress: what the handler noted, from where it goes on when it is taken up again.
        error: why its last attempt failed; empty when it did not.
        run_at: not before, seconds since 1970; of a running job, when its lease ends.
        at: when it was queued, seconds since 1970.
    """

    id: str
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    session_id: str = ""
    user_id: str = ""
    key: str | None = None
    state: JobState = "queued"
    attempts: int = 0
    progress: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    run_at: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker holds, until its lease ends.

    Attributes:
        tenant: whose it is.
        job: the job as taken up; its `attempts` tells this holder from a later one.
    """

    tenant: str
    job: Job


def job(
    kind: str,
    payload: Mapping[str, Any],
    *,
    session_id: str = "",
    user_id: str = "",
    key: str | None = None,
    delay: float = 0.0,
) -> Job:
    """A new job.

    Args:
        kind: whose work it is.
        payload: JSON values.
        session_id: the session it belongs to.
        user_id: the user it belongs to.
        key: see `Job`.
        delay: seconds to wait before it may be taken up.
    """
    now = time.time()
    return Job(new_id("jb"), kind, payload, session_id=session_id, user_id=user_id, key=key, run_at=now + delay, at=now)
