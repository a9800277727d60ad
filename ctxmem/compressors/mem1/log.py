"""The history of a state: hash-chained events, and the fold that gives the state back bit for bit.

An event holds what was decided, not what was asked: ids are assigned, texts cut, evictions chosen before it is written.
So the fold needs no model, no tokenizer and no clock, and the state at any point is a pure function of the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

from ctxmem.compressors.mem1.state import State, item_json, items_of, load
from ctxmem.errors import InvalidInput

Kind = Literal[
    "init", "user", "assistant", "tool", "obs", "patch", "rewrite", "evict", "degraded", "recall", "pin", "fork"
]
Payload = Mapping[str, Any]
ROOT = bytes(32)
"""What the first event's hash is chained to."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something to log.

    Attributes:
        kind: what happened.
        payload: JSON values.
    """

    kind: Kind
    payload: Payload


@dataclass(frozen=True, slots=True)
class StateEvent:
    """One entry of the log, never changed.

    Attributes:
        seq: position from 0.
        kind: what happened.
        payload: JSON values.
        hash: SHA-256 of the previous hash, the position, the kind and the payload: 32 bytes.
        at: seconds since 1970; not hashed.
    """

    seq: int
    kind: Kind
    payload: Payload
    hash: bytes
    at: float = 0.0


def link(previous: bytes, seq: int, change: Change) -> bytes:
    """The hash of an event after another."""
    said = json.dumps([seq, change.kind, change.payload], ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return sha256(previous + said.encode()).digest()


def extend(log: Sequence[StateEvent], changes: Iterable[Change], *, at: float = 0.0) -> tuple[StateEvent, ...]:
    """The events that changes become at the end of a log.

    Args:
        log: what stands before; its last event is enough.
        changes: what happened, in order.
        at: seconds since 1970.
    """
    previous, seq = (log[-1].hash, log[-1].seq + 1) if log else (ROOT, 0)
    added = []
    for change in changes:
        previous = link(previous, seq, change)
        added.append(StateEvent(seq, change.kind, change.payload, previous, at))
        seq += 1
    return tuple(added)


def broken(log: Sequence[StateEvent], *, previous: bytes = ROOT) -> int | None:
    """The position of the first event that does not follow from the one before; None when all do."""
    for event in log:
        if event.hash != link(previous, event.seq, Change(event.kind, event.payload)):
            return event.seq
        previous = event.hash
    return None


def rebuild(log: Iterable[StateEvent], *, upto: int | None = None, start: State | None = None) -> State:
    """The state after the events with `seq <= upto`, or after all of them.

    Args:
        log: events in order.
        upto: the last position that counts.
        start: the state before the first of them; None when the log starts at the beginning.
    """
    state = start or State()
    for event in log:
        if upto is not None and event.seq > upto:
            break
        state = after(state, event.kind, event.payload)
    return state


def after(state: State, kind: Kind, payload: Payload) -> State:
    """The state after one event; events that are no changes of the state leave it as it is."""
    change = _CHANGES.get(kind)
    return change(state, payload) if change is not None else state


def fork(log: Sequence[StateEvent], at: int) -> tuple[StateEvent, ...]:
    """A log of its own that starts with the events up to `at`.

    Raises:
        InvalidInput: the log has no such position.
    """
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < len(log):
        raise InvalidInput(f"at must be a position of the log, 0 to {len(log) - 1}; got {at!r}", param="at")
    shared = tuple(log[: at + 1])
    return (*shared, *extend(shared, [Change("fork", {"at": at, "of": shared[-1].hash.hex()})]))


def difference(before: State, now: State) -> dict[str, Any]:
    """What changed between two states, as JSON values: items added, gone, and changed with both forms."""
    old, new = before.by_id, now.by_id
    return {
        "from": before.version,
        "to": now.version,
        "added": [item_json(item) for id, item in new.items() if id not in old],
        "gone": [item_json(item) for id, item in old.items() if id not in new],
        "changed": [
            {"before": item_json(old[id]), "after": item_json(item)}
            for id, item in new.items()
            if id in old
            and (item.sec, item.text, item.prio, item.src) != (old[id].sec, old[id].text, old[id].prio, old[id].src)
        ],
    }


def _init(state: State, payload: Payload) -> State:
    del state
    return State(payload["goal"], tuple(payload["pins"]), bound=payload["bound"], tokens=payload["tokens"])


def _fork(state: State, payload: Payload) -> State:
    return load(payload["state"]) if "state" in payload else state


def _pin(state: State, payload: Payload) -> State:
    return _moved(state, payload, pins=(*state.pins, payload["text"]))


def _patch(state: State, payload: Payload) -> State:
    """Items set by id, new ones at the end, the named ones gone; everything else is the same object as before."""
    changed = {item.id: item for item in items_of(payload["items"])}
    gone = set(payload["gone"])
    kept = [changed.pop(item.id, item) for item in state.items if item.id not in gone]
    fresh = tuple(changed.values())
    last = max([state.last, *(int(item.id[1:]) for item in fresh)])
    return _moved(state, payload, items=(*kept, *fresh), last=last)


def _rewrite(state: State, payload: Payload) -> State:
    fresh = items_of(payload["items"])
    last = max([state.last, *(int(item.id[1:]) for item in fresh)])
    return _moved(state, payload, items=fresh, last=last)


def _evict(state: State, payload: Payload) -> State:
    gone = set(payload["gone"])
    kept = tuple(item for item in state.items if item.id not in gone)
    return _moved(state, payload, items=kept, evicted=state.evicted + len(gone))


def _moved(state: State, payload: Payload, **changed: Any) -> State:
    covers = max(state.covers, payload.get("covers", 0))
    return replace(state, version=state.version + 1, tokens=payload["tokens"], covers=covers, **changed)


_CHANGES: Mapping[str, Callable[[State, Payload], State]] = {
    "init": _init,
    "pin": _pin,
    "patch": _patch,
    "rewrite": _rewrite,
    "evict": _evict,
    "fork": _fork,
}
