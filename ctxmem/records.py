"""Rows of the log, as values. The store keeps them; the manager makes them; nobody changes one.

A session is a tree of events. Its root-to-tip paths are branches; a plain conversation has one branch, number 0.
An event is named by its chain hash, `h(parent chain, message)`, so a retried request finds the events it already
made, an edited history becomes a new branch, and two concurrent turns become two branches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctxmem.job import Job
from ctxmem.types import OURS, SegmentKind, Verdict


@dataclass(frozen=True, slots=True)
class Event:
    """One message of the log, never updated.

    Attributes:
        id: `ev_` and 32 hex digits, time-ordered.
        session_id: its session.
        branch: branch it was appended to.
        seq: position in the session's log over all branches, from 0.
        depth: position in its branch's history, from 0.
        parent_id: the event before it in that history; None for the first.
        chain: hash of the history up to and with this event, 16 bytes.
        role: the message's role.
        raw: the message's JSON exactly as it came.
        origin: `client`, `upstream` (an answer we relayed), or `ctxmem:` and the kind of segment that ctxmem put in.
        request_id: request that brought it; None when appended directly.
        at: seconds since 1970.
        complete: False when an answer was cut off before its end.
    """

    id: str
    session_id: str
    branch: int
    seq: int
    depth: int
    parent_id: str | None
    chain: bytes
    role: str
    raw: bytes
    origin: str
    request_id: str | None
    at: float
    complete: bool = True

    @property
    def kind(self) -> SegmentKind | None:
        """What ctxmem put it in as; None for what was said."""
        named = self.origin.partition(":")[2]
        return next((kind for kind in OURS if kind == named), None)


@dataclass(frozen=True, slots=True)
class Branch:
    """One path through a session's events, and its tip.

    Attributes:
        session_id: its session.
        number: 0 for the first branch.
        parent: branch it forked from; None for branch 0.
        fork_depth: how many events of the parent it shares.
        fork_turn: session turn at which it forked; older ledger rows of the parent hold for it too.
        tip_id: its newest event; None when empty.
        tip_chain: chain hash of that event; the session's seed when empty.
        depth: number of events on the path.
        epoch: how many times its context was compacted.
        request_id: its newest request; empty before the first.
    """

    session_id: str
    number: int = 0
    parent: int | None = None
    fork_depth: int = 0
    fork_turn: int = 0
    tip_id: str | None = None
    tip_chain: bytes = b""
    depth: int = 0
    epoch: int = 0
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """Head of a session.

    Attributes:
        id: the client's id, or `s_` and 32 hex digits when the chain named it.
        user_id: whose session it is; empty when nobody said.
        agent_id: the agent in it; empty when nobody said.
        revision: changes with every write; compare-and-set on it.
        events: events logged so far over all branches; the next event's seq.
        turn: requests built so far; orders the ledger.
        branches: number of branches.
        style: `full` when the client resends all history, `delta` when it sends what is new, empty until known.
        branch: branch of the newest request.
        created_at: seconds since 1970.
        updated_at: seconds since 1970.
    """

    id: str
    user_id: str = ""
    agent_id: str = ""
    revision: int = 0
    events: int = 0
    turn: int = 0
    branches: int = 1
    style: str = ""
    branch: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """How an event is rendered from one turn on, until a later entry of the same event.

    Attributes:
        session_id: its session.
        branch: branch whose requests it holds for (and those forked from it later).
        turn: first turn it holds for.
        event_id: the event.
        decision: what became of it.
        stage: the step that decided.
        reason: why.
        tokens_before: its cost in full.
        tokens_after: its cost as rendered.
        rendered: the message's JSON as sent when it is not the original; None otherwise.
        seat: where it stands among the branch's depths, for what ctxmem put in; None where it was said.
        into: the event that stands for it since it was folded or consolidated; None otherwise.
    """

    session_id: str
    branch: int
    turn: int
    event_id: str
    decision: Verdict
    stage: str = ""
    reason: str = ""
    tokens_before: int = 0
    tokens_after: int = 0
    rendered: bytes | None = None
    seat: float | None = None
    into: str | None = None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as built and answered.

    Attributes:
        id: `rq_` and 32 hex digits, time-ordered.
        session_id: its session.
        branch: its branch.
        turn: its turn in the session.
        depth: events of the branch it saw.
        epoch: the branch's epoch when it was built.
        model: target model as named by the caller.
        exact: whether the counts are the model's own.
        mode: off, observe or on.
        policy: policy name.
        limit: prompt tokens allowed.
        reserve: tokens kept for the answer.
        tokens: prompt tokens as rendered.
        parts: tokens by part.
        stable_prefix: leading tokens equal to the last request of the branch.
        action: pass, arrival, epoch or bypass.
        reason: why.
        tools_sha: artifact that holds the tools' JSON; empty when there are none.
        rendered_sha: SHA-256 of the rendered messages array, hex.
        status: `built`, `answered`, `cut` or `failed`.
        reply_id: event of the answer; None until recorded.
        usage: the upstream's own usage numbers.
        timings: milliseconds by stage.
        at: seconds since 1970.
    """

    id: str
    session_id: str
    branch: int
    turn: int
    depth: int
    epoch: int
    model: str
    exact: bool
    mode: str
    policy: str
    limit: int
    reserve: int
    tokens: int
    parts: Mapping[str, int]
    stable_prefix: int
    action: str
    reason: str
    tools_sha: str = ""
    rendered_sha: str = ""
    status: str = "built"
    reply_id: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one turn writes, all or nothing.

    Attributes:
        session: the session's new head; its revision is `expected + 1`.
        expected: revision the writer saw; 0 when the session is new.
        branch: the branch's new tip; None when it did not move.
        events: events to append.
        entries: ledger entries to append.
        request: request to insert, or to replace when its id is known.
        artifacts: content to keep, SHA-256 hex to bytes; known ones are left alone.
        idempotency_key: the caller's key for this write; the same key again returns the first result.
        jobs: work that this write causes; it is queued with it or not at all.
    """

    session: Session
    expected: int
    branch: Branch | None = None
    events: tuple[Event, ...] = ()
    entries: tuple[LedgerEntry, ...] = ()
    request: RequestRecord | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    idempotency_key: str | None = None
    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class Erasure:
    """Receipt of a deletion.

    Attributes:
        id: `del_` and 32 hex digits.
        scope: what was erased, such as `session:chat-42` or `user:alice`.
        counts: rows removed by table, cache keys removed under `cache`.
        ids_sha256: hash of the sorted ids that went, hex.
        at: seconds since 1970.
    """

    id: str
    scope: str
    counts: Mapping[str, int]
    ids_sha256: str
    at: float
