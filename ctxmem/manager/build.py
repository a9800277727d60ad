"""From a call with its place in the log to the context that is sent, and to the rows that say so. No I/O."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from ctxmem.errors import BudgetError
from ctxmem.ids import new_id
from ctxmem.ledger import Live, LiveItem, fingerprint, gain, surroundings
from ctxmem.manager.adopt import adopt
from ctxmem.manager.arrive import Arrival
from ctxmem.manager.calls import Call
from ctxmem.manager.hot import is_gone
from ctxmem.plan import ContextPlan, layout, owner
from ctxmem.policy import Policy
from ctxmem.ports import Counter
from ctxmem.records import Batch, LedgerEntry, RequestRecord
from ctxmem.report import stable_prefix
from ctxmem.transform import run
from ctxmem.types import UNLIMITED, Budget, Decision, Message, Scope, Verdict

_VERDICTS: Mapping[str, Verdict] = {
    "drop": "dropped",
    "prune": "pruned",
    "fold": "folded",
    "consolidate": "consolidated",
    "memory": "memory",
}


@dataclass(frozen=True, slots=True)
class Built:
    """A context and what must be written before it is sent.

    Attributes:
        plan: the plan as it will be rendered.
        messages: the rendering.
        live: the branch's state once the batch is written.
        batch: the rows.
        before: tokens of the whole history unedited.
        refused: why the context cannot be sent; the batch is written all the same.
    """

    plan: ContextPlan
    messages: tuple[Message, ...]
    live: Live
    batch: Batch
    before: int
    refused: BudgetError | None = None


@dataclass(frozen=True, slots=True)
class _Reduced:
    """A plan made to fit: what was done, and the error when it could not be."""

    plan: ContextPlan
    action: str
    reason: str
    refused: BudgetError | None = None


def build(call: Call, arrival: Arrival, policy: Policy, counter: Counter) -> Built:
    """Plan the context of a call and say what to write."""
    started = time.perf_counter()
    laid = _lay_out(call, arrival, counter)
    reduced = _reduce(laid, call, arrival, policy)
    plan, arrival, into = adopt(reduced.plan, arrival)
    plan = _with_memory(plan) if policy.memory else plan
    reduced = replace(reduced, plan=plan)
    messages = plan.render()
    request = _request(call, arrival, reduced, messages)
    request = replace(request, policy=policy.name, timings={"plan_ms": _milliseconds(started)})
    booked, items = _book(laid, plan, messages, arrival)
    entries = tuple(_placed(entry, request, into) for entry in booked)
    gone = arrival.live.gone + sum(e.tokens_before for e in entries if is_gone(e))
    live = Live(
        session=replace(
            arrival.session, revision=arrival.session.revision + 1, turn=request.turn, updated_at=request.at
        ),
        branch=replace(arrival.branch, epoch=request.epoch, request_id=request.id),
        items=items,
        sent=_sent(plan, messages),
        surroundings=_surroundings(call),
        at=request.at,
        gone=gone,
    )
    batch = Batch(
        session=live.session,
        expected=arrival.session.revision,
        branch=live.branch,
        events=tuple(replace(event, request_id=request.id) for event in arrival.events),
        entries=entries,
        request=request,
        artifacts={request.tools_sha: call.tools} if call.tools else {},
    )
    before = laid.fixed + gone + sum(item.before for item in items)
    return Built(plan, messages, live, batch, before, reduced.refused)


def _with_memory(plan: ContextPlan) -> ContextPlan:
    """The plan whose state stands for compressed memory, which is named by the state's event."""
    named = (replace(s, memory=owner(s)) if s.kind == "state" else s for s in plan.segments)
    return replace(plan, segments=tuple(named))


def _placed(entry: LedgerEntry, request: RequestRecord, into: Mapping[str, str]) -> LedgerEntry:
    """The entry with the turn it holds from, and with what stands for its event when that is gone."""
    stands = into.get(entry.event_id) if is_gone(entry) else None
    return replace(entry, session_id=request.session_id, branch=request.branch, turn=request.turn, into=stands)


def _request(call: Call, arrival: Arrival, reduced: _Reduced, messages: tuple[Message, ...]) -> RequestRecord:
    plan = reduced.plan
    tokens = plan.count.request(messages, plan.tools)
    warm = _surroundings(call) == arrival.live.surroundings
    stable = stable_prefix(arrival.live.sent, _sent(plan, messages)) if warm else 0
    return RequestRecord(
        id=new_id("rq"),
        session_id=arrival.session.id,
        branch=arrival.branch.number,
        turn=arrival.session.turn + 1,
        depth=arrival.branch.depth,
        epoch=arrival.branch.epoch + (reduced.action == "epoch"),
        model=call.model,
        exact=plan.count.exact,
        mode=call.mode,
        policy="",
        limit=plan.budget.limit,
        reserve=plan.budget.reserve,
        tokens=tokens,
        parts=_parts(plan, tokens),
        stable_prefix=min(tokens, stable + plan.fixed) if stable else 0,
        action=reduced.action,
        reason=reduced.reason,
        tools_sha=_tools_sha(call),
        rendered_sha=rendered_sha(messages),
        status="failed" if reduced.refused is not None else "built",
        at=time.time(),
    )


def rendered_sha(messages: tuple[Message, ...]) -> str:
    """SHA-256 (hex) of the messages array as compact JSON around each message's own bytes."""
    return hashlib.sha256(b"[" + b",".join(message.raw or b"" for message in messages) + b"]").hexdigest()


def _budget(call: Call, counter: Counter) -> Budget:
    if call.budget is not None:
        return call.budget
    if counter.window is None:
        return UNLIMITED
    return Budget(counter.window, min(call.reserve, counter.window - 1))


def _lay_out(call: Call, arrival: Arrival, counter: Counter) -> ContextPlan:
    items = arrival.items
    plan = layout(
        [item.message for item in items],
        _budget(call, counter),
        counter,
        tools=call.tools,
        frozen={item.message.id for item in items if item.booked},
        shortened={item.message.id for item in items if item.pruned},
    )
    return replace(plan, scope=_scope(call, arrival))


def _scope(call: Call, arrival: Arrival) -> Scope:
    session, branch = arrival.session, arrival.branch
    return Scope(call.tenant, session.id, session.user_id, branch.number, session.turn + 1, branch.depth)


def _reduce(plan: ContextPlan, call: Call, arrival: Arrival, policy: Policy) -> _Reduced:
    """The plan made to fit: arrival edits first, an epoch when it must or when it pays."""
    laid = plan
    ended = policy.scopes.ended_now(plan)
    if arrival.events or ended:
        plan = run(plan.open(ended), (policy.scopes, *policy.arrival))
    why = _epoch_reason(plan, call, arrival, policy)
    if why is not None:
        try:
            opened = run(plan.open(), (policy.scopes, *policy.epoch))
        except BudgetError as error:
            return _Reduced(plan, "bypass", f"budget: {error}", error)
        if opened.segments != plan.open().segments:
            return _Reduced(opened, "epoch", why)
    if plan.segments != laid.segments:
        folded = any(decision.action == "fold" for decision in plan.decisions)
        return _Reduced(plan, "arrival", "a subtask was folded" if folded else "shortened on arrival")
    return _Reduced(plan, "pass", "nothing to do")


def _epoch_reason(plan: ContextPlan, call: Call, arrival: Arrival, policy: Policy) -> str | None:
    """Why history should be opened now; None when it should stay as it was sent."""
    limit, tokens = plan.budget.limit, plan.exact
    if tokens > limit:
        return f"over budget: {tokens} > {limit}"
    idle = time.time() - arrival.live.at
    changed = arrival.live.surroundings not in (b"", _surroundings(call)) or bool(arrival.superseded)
    cold = changed or idle > call.cache.ttl
    mark = (policy.high + policy.low) / 2 if cold else policy.high
    if tokens <= mark * limit or not arrival.live.items:
        return None
    keep = int(policy.low * limit)
    turns = min(50, max(4, arrival.session.turn))
    idle = math.inf if changed else idle
    worth = gain(tokens - keep, keep, turns=turns, idle=idle, terms=call.cache)
    return f"{tokens} of {limit} tokens used, gain {worth:.0f}" if worth > 0 else None


def _book(
    laid: ContextPlan, plan: ContextPlan, messages: tuple[Message, ...], arrival: Arrival
) -> tuple[tuple[LedgerEntry, ...], tuple[LiveItem, ...]]:
    """The ledger entries that changed with this request, and the items that stay live."""
    full, now = _costs(laid), _costs(plan)
    rendered = {message.id: message for message in messages}
    edits = {segment_id.rpartition(":")[0]: d for d in plan.decisions for segment_id in d.segments}
    booked = {item.message.id: item.message.raw for item in arrival.live.items if item.booked}
    entries = [
        LedgerEntry("", 0, 0, item.message.id, "dropped", "client", "superseded by the client", item.before, 0)
        for item in arrival.superseded
    ]
    items = []
    for item in arrival.items:
        event_id = item.message.id
        item = item if item.seat is not None else replace(item, before=item.before or full[event_id])
        sent = rendered.get(event_id)
        if sent is None or sent.raw != booked.get(event_id):
            entry = _entry(item, sent, edits.get(event_id), now.get(event_id, 0))
            entries.append(replace(entry, seat=item.seat))
        if sent is not None:
            pruned = item.pruned or sent.raw != item.message.raw
            rewritten = pruned or item.rewritten or (item.booked and sent.raw != booked.get(event_id))
            items.append(replace(item, message=sent, pruned=pruned, booked=True, rewritten=rewritten))
    return tuple(entries), tuple(items)


def _entry(item: LiveItem, sent: Message | None, edit: Decision | None, tokens: int) -> LedgerEntry:
    """What the ledger holds for an item from this turn on."""
    event_id = item.message.id
    if sent is None:
        verdict: Verdict = _VERDICTS.get(edit.action, "dropped") if edit is not None else "dropped"
        stage, why = (edit.step, edit.why) if edit is not None else ("", "")
        return LedgerEntry("", 0, 0, event_id, verdict, stage, why, item.before, 0)
    if item.seat is not None and not item.booked:
        put: Verdict = "retrieved" if item.message.kind == "retrieved" else "kept"
        stage, why = (edit.step, edit.why) if edit is not None else ("", "")
        return LedgerEntry("", 0, 0, event_id, put, stage, why, 0, tokens)
    if edit is not None and sent.raw != item.message.raw:
        return LedgerEntry("", 0, 0, event_id, "pruned", edit.step, edit.why, item.before, tokens, sent.raw)
    stage = "header" if item.header else ""
    other = sent.raw if item.rewritten or item.booked else None
    return LedgerEntry("", 0, 0, event_id, "kept", stage, "", item.before, tokens, other)


def _costs(plan: ContextPlan) -> dict[str, int]:
    """Tokens by message id."""
    owned = groupby(plan.segments, key=lambda segment: segment.id.rpartition(":")[0] or segment.id)
    return {owner: sum(segment.tokens for segment in group) for owner, group in owned}


def _parts(plan: ContextPlan, tokens: int) -> dict[str, int]:
    """Tokens by part; they add up to `tokens`. The template's own share counts as tools, else as system."""
    newest = next((s.group for s in reversed(plan.segments) if s.role == "user" and not s.ours), None)
    parts = dict.fromkeys(("system", "tools", "state", "retrieved", "history", "query"), 0)
    parts["tools" if plan.tools else "system"] = plan.fixed
    for segment in plan.segments:
        kind = segment.kind if segment.kind in parts else "query" if segment.group == newest else "history"
        parts[kind] += segment.tokens
    parts["history"] += tokens - sum(parts.values())
    return parts


def _surroundings(call: Call) -> bytes:
    return surroundings(call.model, _tools_sha(call))


def _tools_sha(call: Call) -> str:
    return hashlib.sha256(call.tools).hexdigest() if call.tools else ""


def _sent(plan: ContextPlan, messages: tuple[Message, ...]) -> tuple[tuple[bytes, int], ...]:
    costs = _costs(plan)
    return fingerprint(messages, [costs[message.id] for message in messages])


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
