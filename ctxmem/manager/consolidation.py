"""The job that works a session's next state out after an answer, so that the epoch to come need not.

It is queued with the answer or not at all, at most one a session; it reads what is in the context now, asks a model
where there is one, and logs its state for the next epoch. What is said meanwhile is read by the epoch itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from ctxmem.compressors.mem1.apply import Turn
from ctxmem.compressors.mem1.consolidate import Ahead, Consolidate, begun, said
from ctxmem.compressors.mem1.ladder import Updater
from ctxmem.compressors.mem1.log import Change, after
from ctxmem.compressors.mem1.state import LEAST_BOUND, State
from ctxmem.compressors.pencil.fold import Fold
from ctxmem.effects import drive
from ctxmem.errors import NotFound
from ctxmem.job import Claim, Job, job
from ctxmem.ledger import Live
from ctxmem.manager import ContextManager
from ctxmem.manager.states import ahead_of, record
from ctxmem.plan import ContextPlan, layout, owner
from ctxmem.policy import LOW
from ctxmem.ports import Complete, Counter
from ctxmem.records import RequestRecord
from ctxmem.runner import Note
from ctxmem.types import UNLIMITED, Scope, Segment

KIND = "consolidate"
POLICIES = ("mem1",)
"""Those whose epochs go on from such a state."""

BATCH = 4_000
"""Tokens of turns that a model is shown at once."""


def wanted(request: RequestRecord) -> tuple[Job, ...]:
    """The job that an answer causes: one, once the context is over the mark that an epoch brings it down to."""
    if request.policy not in POLICIES or request.tokens <= LOW * request.limit:
        return ()
    payload = {"session_id": request.session_id, "request_id": request.id}
    return (job(KIND, payload, session_id=request.session_id, key=request.session_id),)


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Handler of the jobs.

    Attributes:
        manager: the manager of any tenant.
        complete: the model that is asked; None to extract.
        timeout_s: seconds that one answer of it may take.
    """

    manager: ContextManager
    complete: Complete | None = None
    timeout_s: float = 60.0

    def __call__(self, claim: Claim, note: Note) -> None:
        """Work the state of the job's session out and log it, if there is anything new to consolidate."""
        del note
        manager = self.manager.for_tenant(claim.tenant)
        request = manager.engine.store.request(claim.tenant, str(claim.job.payload["request_id"]))
        try:
            live = manager.writes.current(claim.job.session_id)
        except NotFound:  # erased
            return
        if request is None or request.branch != live.branch.number:
            return
        found = self._state(manager, live, request)
        if found is not None:
            manager.writes.aside(live, record(found.state, found.covers), "worked out ahead, for the next epoch")

    def _state(self, manager: ContextManager, live: Live, request: RequestRecord) -> Ahead | None:
        """The state of what is in the context, without the newest exchange; None when it says nothing new."""
        count = manager.engine.counters(request.model)
        bound = Consolidate().room(request.limit, count)[1]
        if bound < LEAST_BOUND:
            return None
        scope = Scope(
            manager.tenant, live.session.id, live.session.user_id, live.branch.number, depth=live.branch.depth
        )
        messages = [item.message for item in live.items]
        shown = next(((message.id, message.text) for message in messages if message.kind == "state"), None)
        before = begun(ahead_of(manager.engine.store, scope), shown)
        plan = layout(messages, UNLIMITED, count)
        new = said(segment for segment in _old(plan) if owner(segment) not in before.covers)
        if not new:
            return None
        state = replace(before.state, bound=bound)
        for turns in _batches(new, count):
            state = self._updated(state, turns, count)
        return Ahead(state, before.covers | {turn.id for turn in new})

    def _updated(self, state: State, turns: Sequence[Turn], count: Counter) -> State:
        updater = Updater(ask=self.complete is not None)
        steps = updater.update(state, turns, count)
        changes = drive(steps, cast(Complete, self.complete), timeout_s=self.timeout_s)
        made = _after(state, changes)
        return made if made.items else _after(state, updater.extracted(state, turns, count))


def _after(state: State, changes: Sequence[Change]) -> State:
    for change in changes:
        state = after(state, change.kind, change.payload)
    return state


def _old(plan: ContextPlan) -> list[Segment]:
    """What stands before the newest user message, as an epoch would find it.

    An epoch folds scopes that have ended before it consolidates. So their inside is left out here: it will leave soon,
    and what they came to is read once it has taken its place.
    """
    folding = Fold().ended_now(plan)
    pinned = (at for at, s in enumerate(plan.segments) if s.pinned and s.kind not in ("system", "scope"))
    newest = next(pinned, 0)
    return [segment for segment in plan.segments[:newest] if not segment.pinned and segment.id not in folding]


def _batches(turns: Sequence[Turn], count: Counter) -> Iterator[tuple[Turn, ...]]:
    """The turns in order, as many at a time as `BATCH` tokens hold, and at least one."""
    batch: list[Turn] = []
    size = 0
    for turn, tokens in zip(turns, count.texts([turn.text for turn in turns]), strict=True):
        if batch and size + tokens > BATCH:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(turn)
        size += tokens
    if batch:
        yield tuple(batch)
