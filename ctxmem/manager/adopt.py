"""What ctxmem puts into a context becomes part of the log: an event with a seat among what was said.

A transform inserts or folds segments under names of its own. Once the plan is final each of them is logged as an event
of the branch, aside of the conversation's chain. From then on it is replayed, listed and restored like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ctxmem import chat
from ctxmem.ledger import LiveItem
from ctxmem.manager.arrive import Arrival, Log
from ctxmem.plan import ContextPlan, owner
from ctxmem.types import Message, Segment

_APART = 2.0**-10  # between seats after the last message; the next message that comes has a whole depth more


def adopt(plan: ContextPlan, arrival: Arrival) -> tuple[ContextPlan, Arrival, Mapping[str, str]]:
    """Log what the plan holds that nobody said.

    Returns:
        The plan with every segment under its event's id; the arrival with the new events and items, in the order in
        which they are sent; and, by event id, the new event whose segment names it among its sources.
    """
    known = {item.message.id: item for item in arrival.items}
    if all(owner(segment) in known for segment in plan.segments):
        return plan, arrival, {}
    log = Log(arrival.session, arrival.branch)
    into: dict[str, str] = {}
    names: dict[str, str] = {}
    segments: list[Segment] = []
    for group, seat in _seated(plan.segments, known, arrival.branch.depth):
        if seat is None:
            segments.extend(group)
            continue
        adopted = _log(group, seat, log, plan)
        segments.append(adopted)
        names.update(dict.fromkeys((s.id for s in group), adopted.id))
        into.update(dict.fromkeys((source for s in group for source in s.sources), log.events[-1].id))
    decisions = tuple(replace(d, segments=tuple(names.get(id, id) for id in d.segments)) for d in plan.decisions)
    sources = (*plan.sources, *(item.message for item in log.items))
    plan = replace(plan, segments=tuple(segments), decisions=decisions, sources=sources)
    items = sorted([*arrival.items, *log.items], key=lambda item: item.place)
    events = (*arrival.events, *log.events)
    arrival = replace(arrival, session=log.session, branch=log.branch, events=events, items=tuple(items))
    return plan, arrival, into


def _log(group: Sequence[Segment], seat: float, log: Log, plan: ContextPlan) -> Segment:
    """Log neighbouring segments of one owner as one event; returns them as one segment."""
    first = group[0]
    kind = first.kind if first.ours else "fold"
    message: Message = chat.build(first.role, "".join(segment.text for segment in group), kind=kind)
    log.add(message, seat=seat, origin=f"ctxmem:{kind}")
    message = log.items[-1].message
    sources = tuple(dict.fromkeys(source for segment in group for source in segment.sources))
    return replace(
        first,
        id=f"{message.id}:0",
        kind=kind,
        text=message.text,
        tokens=plan.count.messages([message])[0],
        sources=sources or (message.id,),
        group=first.group or message.id,
    )


def _seated(
    segments: Sequence[Segment], known: Mapping[str, LiveItem], depth: int
) -> Iterator[tuple[list[Segment], float | None]]:
    """Segments of one owner at a time; those that nobody said with a seat between their neighbours' places."""
    groups = [(name, list(group)) for name, group in groupby(segments, key=owner)]
    before = -1.0
    for i, (name, group) in enumerate(groups):
        item = known.get(name)
        if item is not None:
            before = before if item.header else item.place[1]
            yield group, None
            continue
        after = next((known[other].place[1] for other, _ in groups[i + 1 :] if other in known), None)
        before = (before + after) / 2 if after is not None else max(before + _APART, depth)
        yield group, before
