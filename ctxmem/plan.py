"""The plan of one request's context: a value with verbs.

A plan is laid out from messages, changed by verbs that each return a new plan and write one `Decision`, and rendered
back to messages. The trace of every edit exists by construction, and the verbs protect pinned and frozen segments.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from ctxmem import chat
from ctxmem.errors import TransformError
from ctxmem.ports import Counter
from ctxmem.report import Report
from ctxmem.types import NOBODY, Action, Budget, Decision, Message, Part, Receipt, Scope, Segment, SegmentKind


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What will be sent, and how it came to be.

    Attributes:
        segments: the context in order.
        budget: tokens the rendered request may take.
        count: counts in the target model's tokens.
        decisions: every edit so far.
        sources: the messages the plan was laid out from.
        tools: the request's tools as a JSON array; None without tools.
        fixed: tokens of the request that belong to no segment (tools, template, generation prompt).
        original: the segments as laid out.
        receipt: the stored account, once a manager has made one.
        scope: whose context it is; transforms that look something up read it.
    """

    segments: tuple[Segment, ...]
    budget: Budget
    count: Counter
    decisions: tuple[Decision, ...] = ()
    sources: tuple[Message, ...] = ()
    tools: bytes | None = None
    fixed: int = 0
    original: tuple[Segment, ...] = ()
    receipt: Receipt | None = None
    scope: Scope = NOBODY

    @property
    def tokens(self) -> int:
        """Tokens of the rendered request, by addition; `exact` counts the rendering itself."""
        return self.fixed + sum(segment.tokens for segment in self.segments)

    @property
    def overflow(self) -> int:
        """Tokens over the budget; 0 when it fits."""
        return max(0, self.tokens - self.budget.limit)

    @property
    def exact(self) -> int:
        """Tokens of the rendered request as the model's own tokenizer and template count them."""
        return self.count.request(self.render(), self.tools)

    @property
    def query(self) -> str:
        """What is being asked: the text of the newest user message."""
        for segment in reversed(self.segments):
            if segment.role == "user" and not segment.ours:
                return "".join(s.text for s in self.segments if owner(s) == owner(segment) and s.kind == "text")
        return ""

    @property
    def report(self) -> Report:
        """What was done to the context, and why."""
        return Report(self.original, self.segments, self.decisions, self.receipt)

    def render(self) -> tuple[Message, ...]:
        """The messages to send; an untouched message keeps its bytes."""
        by_id = {message.id: message for message in self.sources}
        return tuple(_message(list(group), by_id.get(name)) for name, group in groupby(self.segments, key=owner))

    def messages(self) -> list[dict[str, Any]]:
        """The messages to send, in the OpenAI chat shape."""
        return [json.loads(message.raw or b"{}") for message in self.render()]

    def drop(self, ids: Collection[str], *, step: str, why: str) -> ContextPlan:
        """Leave segments out. The rest of their groups goes with them.

        Raises:
            TransformError: an id is unknown, or a segment that would go is pinned or frozen.
        """
        named = self._named(ids, step)
        wanted = {s.id for s in named}
        groups = {s.group for s in named if s.group is not None}
        gone = {s.id: s for s in self.segments if s.id in wanted or s.group in groups}
        self._refuse_locked(gone.values(), step)
        rest = tuple(s for s in self.segments if s.id not in gone)
        return self._edited(rest, Decision(step, "drop", tuple(gone), -_size(gone.values()), why))

    def rewrite(self, texts: Mapping[str, str], *, step: str, why: str, action: Action = "prune") -> ContextPlan:
        """Give segments new texts; the plan counts them.

        Raises:
            TransformError: an id is unknown, or its segment is pinned, frozen or not text.
        """
        old = self._named(texts, step)
        self._refuse_locked(old, step)
        if any(s.kind in ("tool_call", "opaque", "sealed") for s in old):
            raise TransformError(f"{step}: only text can be rewritten")
        counted = self.count.texts([t for s in old for t in (s.text, texts[s.id])])
        change = {s.id: after - before for s, before, after in zip(old, counted[::2], counted[1::2], strict=True)}
        new = tuple(
            replace(s, text=texts[s.id], tokens=max(0, s.tokens + change[s.id]), shortened=True)
            if s.id in change
            else s
            for s in self.segments
        )
        return self._edited(new, Decision(step, action, tuple(change), _size(new) - _size(self.segments), why))

    def fold(self, ids: Collection[str], into: Segment, *, step: str, why: str, action: Action = "fold") -> ContextPlan:
        """Put one segment in the place of several. Its sources become theirs too.

        The marks of scopes are pinned for every other verb; this one takes them.

        Raises:
            TransformError: an id is unknown, a segment is pinned or frozen, or a group would be torn.
        """
        folded = self._named(ids, step)
        self._refuse_locked((s for s in folded if s.kind != "scope" or s.frozen), step)
        wanted = {s.id for s in folded}
        groups = {s.group for s in folded if s.group is not None}
        if any(s.group in groups and s.id not in wanted for s in self.segments):
            raise TransformError(f"{step}: a fold must take whole groups")
        sources = tuple(dict.fromkeys([*into.sources, *(source for s in folded for source in s.sources)]))
        into = replace(into, sources=sources, tokens=self._cost(into))
        first = folded[0].id
        new = tuple(into if s.id == first else s for s in self.segments if s.id == first or s.id not in wanted)
        change = into.tokens - _size(folded)
        return self._edited(new, Decision(step, action, tuple(s.id for s in folded), change, why))

    def insert(
        self, segments: Sequence[Segment], at: int, *, step: str, why: str, action: Action = "retrieve"
    ) -> ContextPlan:
        """Put new segments in at an index; the plan counts them.

        Raises:
            TransformError: an id is already taken, or the place lies before a frozen segment.
        """
        taken = {s.id for s in self.segments}
        if any(s.id in taken for s in segments):
            raise TransformError(f"{step}: inserted ids must be new")
        if any(s.frozen for s in self.segments[at:]):
            raise TransformError(f"{step}: nothing goes in before a frozen segment")
        counted = tuple(replace(s, tokens=self._cost(s)) for s in segments)
        new = (*self.segments[:at], *counted, *self.segments[at:])
        return self._edited(new, Decision(step, action, tuple(s.id for s in counted), _size(counted), why))

    def skip(self, *, step: str, why: str) -> ContextPlan:
        """Note that a step did nothing, and why."""
        return replace(self, decisions=(*self.decisions, Decision(step, "skip", (), 0, why)))

    def open(self, ids: Collection[str] | None = None) -> ContextPlan:
        """The plan with nothing frozen, the start of an epoch; or with only these segments open."""
        wanted = {s.id for s in self.segments} if ids is None else ids
        opened = (replace(s, frozen=False) if s.frozen and s.id in wanted else s for s in self.segments)
        return replace(self, segments=tuple(opened)) if wanted else self

    def _cost(self, segment: Segment) -> int:
        return self.count.messages([chat.build(segment.role, segment.text)])[0]

    def _named(self, ids: Iterable[str], step: str) -> list[Segment]:
        wanted = set(ids)
        found = [s for s in self.segments if s.id in wanted]
        if len(found) != len(wanted):
            missing = sorted(wanted - {s.id for s in found})
            raise TransformError(f"{step}: no such segments: {', '.join(missing[:5])}")
        return found

    def _refuse_locked(self, segments: Iterable[Segment], step: str) -> None:
        locked = [s.id for s in segments if s.locked]
        if locked:
            raise TransformError(f"{step}: pinned or frozen segments: {', '.join(locked[:5])}")

    def _edited(self, segments: tuple[Segment, ...], decision: Decision) -> ContextPlan:
        return replace(self, segments=segments, decisions=(*self.decisions, decision))


def layout(
    messages: Sequence[Message],
    budget: Budget,
    count: Counter,
    *,
    tools: bytes | None = None,
    frozen: Collection[str] = (),
    shortened: Collection[str] = (),
) -> ContextPlan:
    """Lay messages out as a plan.

    System messages, marks of scopes and the newest user message are pinned. A tool call and its results share a group.

    Args:
        messages: the context in order, each with a unique id.
        budget: tokens allowed.
        count: the target model's counter.
        tools: the request's tools as a JSON array.
        frozen: ids of messages that were sent before and must be replayed as they are.
        shortened: ids of messages whose text is already a shortened form.
    """
    newest = next((m.id for m in reversed(messages) if m.role == "user" and m.kind is None), "")
    groups = _groups(messages)
    segments = tuple(
        replace(
            segment,
            group=groups.get(message.id, message.id),
            pinned=segment.pinned or message.id == newest,
            frozen=message.id in frozen,
            shortened=message.id in shortened,
        )
        for message, cost in zip(messages, count.messages(messages), strict=True)
        for segment in _segments(message, cost, count)
    )
    fixed = count.request(messages, tools) - _size(segments)
    return ContextPlan(segments, budget, count, sources=tuple(messages), tools=tools, fixed=fixed, original=segments)


def _segments(message: Message, cost: int, count: Counter) -> Iterable[Segment]:
    """The message's parts as segments; the first carries the template's share of the tokens."""
    rest = count.texts([part.text for part in message.parts[1:]]) if len(message.parts) > 1 else []
    costs = [max(0, cost - sum(rest)), *rest]
    for i, (part, tokens) in enumerate(zip(message.parts, costs, strict=True)):
        kind, pinned = _kind(message, part), message.role in chat.SYSTEM_ROLES or message.kind == "scope"
        yield Segment(f"{message.id}:{i}", message.role, kind, part.text, tokens, sources=(message.id,), pinned=pinned)


def _kind(message: Message, part: Part) -> SegmentKind:
    if message.kind is not None:
        return message.kind
    if message.role in chat.SYSTEM_ROLES:
        return "system"
    if part.kind != "text":
        return part.kind
    return "tool_result" if message.role in ("tool", "function") else "text"


def _size(segments: Iterable[Segment]) -> int:
    return sum(segment.tokens for segment in segments)


def _groups(messages: Sequence[Message]) -> dict[str, str]:
    """By message id, the group of a tool exchange or of bound items: the id of its first message."""
    groups: dict[str, str] = {}
    open_calls: dict[str, str] = {}
    for before, message in zip((None, *messages), messages, strict=False):
        answered = next((id for id in (message.tool_call_id, *message.answers) if id in open_calls), None)
        if answered is not None:
            groups[message.id] = open_calls[answered]
        elif before is not None and _bound(before, message):
            groups[message.id] = groups.setdefault(before.id, before.id)
        elif message.tool_call_ids:
            groups[message.id] = message.id
        open_calls.update((call, groups[message.id]) for call in message.tool_call_ids)
    return groups


def _bound(before: Message, message: Message) -> bool:
    """Whether two neighbours are pieces of one answer."""
    return before.role == message.role == "assistant" and (before.bound or message.bound)


def owner(segment: Segment) -> str:
    """Id of the message that the segment is a piece of; its own id when it is no piece."""
    return segment.id.rpartition(":")[0] or segment.id


def _message(segments: list[Segment], source: Message | None) -> Message:
    """The message that these neighbouring segments make up."""
    if source is None:
        return chat.build(segments[0].role, "".join(s.text for s in segments), id=segments[0].id)
    texts: list[str | None] = [None] * len(source.parts)
    for segment in segments:
        texts[int(segment.id.rpartition(":")[2])] = segment.text
    return chat.edit(source, texts)
