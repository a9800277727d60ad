"""Which segments of a plan may be pruned. Everything not named here is left alone.

Never: system text, assistant text, tool calls, images and files, the newest user message, locked segments, what was
edited before, code, data other than JSON, and what a tool was asked to quote exactly (files that are read in order to
be edited, restored originals).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxmem.compressors import content
from ctxmem.compressors.structured import is_json
from ctxmem.plan import ContextPlan
from ctxmem.types import Segment

_EXACT = re.compile(
    r"\"name\": \"(?:\w*(?:read|view|open|cat|show|get|fetch)_?(?:file|lines?|source|code|diff|contents?)\w*"
    r"|read|view|cat|edit|ctx_restore|str_replace\w*|apply_patch)\""
    r"|(?:command|cmd|script|code|bash)\W{1,8}(?:[^\"\n]*[;&|]\s*)?(?:cat|sed -n|head|tail|nl|less|git (?:diff|show))\s"
)


def arrivals(plan: ContextPlan, min_tokens: int) -> list[Segment]:
    """Tool results that were not sent before, of at least `min_tokens` as prose and half of that as logs."""
    exact = _exact_groups(plan)
    return [
        segment
        for segment in _open(plan, min_tokens // 2)
        if segment.kind == "tool_result" and segment.group not in exact and _long(segment, min_tokens)
    ]


def history(plan: ContextPlan, min_tokens: int) -> list[Segment]:
    """User turns, tool results and retrieved text that the model need not act on now, oldest first."""
    exact = _exact_groups(plan)
    now = _live(plan)
    return [
        segment
        for segment in _open(plan, min_tokens)
        if segment.group not in now and segment.group not in exact and _shortenable(segment)
    ]


def _open(plan: ContextPlan, min_tokens: int) -> Iterator[Segment]:
    """Segments that are long enough, not locked, and not already a shortened form."""
    return (s for s in plan.segments if s.tokens >= min_tokens and not s.locked and not s.shortened)


def _shortenable(segment: Segment) -> bool:
    speaks = segment.kind in ("tool_result", "retrieved") or (segment.kind == "text" and segment.role == "user")
    return speaks and (content.kind(segment.text) in ("prose", "log") or is_json(segment.text))


def _long(segment: Segment, min_tokens: int) -> bool:
    kind = content.kind(segment.text)
    return kind == "log" or (kind == "prose" and segment.tokens >= min_tokens)


def _live(plan: ContextPlan) -> set[str | None]:
    """Groups of the newest user message and of the exchange that the model is to act on."""
    newest = next((segment.group for segment in reversed(plan.segments) if segment.role == "user"), None)
    return {newest, plan.segments[-1].group} - {None} if plan.segments else set()


def _exact_groups(plan: ContextPlan) -> set[str | None]:
    """Tool exchanges whose call asks for the exact words of something."""
    return {s.group for s in plan.segments if s.kind == "tool_call" and s.group and _EXACT.search(s.text)}
