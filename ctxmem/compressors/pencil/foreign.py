"""Scopes in a conversation: the marks that ctxmem put in, and those that an agent made with its own calls.

An agent's scope begins with the call of `begin_subtask`, a handoff to a sub-agent (`transfer_to_...`, as LangGraph's
supervisors and OpenAI's agents name it) or a line `[subtask: ...]` of its own; it ends with `return_answer`,
`transfer_back_to_...` or a line `[result: ...]`. Only what the assistant itself said counts: a tool's output, or a user
who quotes a mark, opens and ends nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ctxmem.compressors.pencil.marks import Mark, read
from ctxmem.compressors.pencil.tools import BEGIN, RETURN
from ctxmem.plan import owner
from ctxmem.types import Message, Segment

_TEXT = re.compile(r"\s*\[(subtask|result): ?(.*)", re.S)
RESULT_OF = "[result of the subtask] "
"""How the text begins that stands for an agent's scope; the answer follows."""

_HANDOFF, _BACK = "transfer_to_", "transfer_back_to_"


@dataclass(frozen=True, slots=True)
class Seen:
    """A mark in a sequence of segments.

    Attributes:
        mark: what happens; of an agent's own marks the scope is empty, and the text of a handoff back too. None for an
            agent's scope that was folded before: what began it still stands before it.
        first: index of the first segment of its exchange.
        last: index of the last one.
    """

    mark: Mark | None
    first: int
    last: int


def marks(segments: Sequence[Segment], *, auto: bool) -> Iterator[Seen]:
    """The marks among segments, in order.

    Args:
        segments: a plan's.
        auto: those of an agent's own too.
    """
    lasts = {segment.group or segment.id: at for at, segment in enumerate(segments)} if auto else {}
    for at, segment in enumerate(segments):
        if segment.kind == "scope":
            mark = read(segment.text)
            if mark is not None:
                yield Seen(mark, at, at)
        elif auto and segment.kind == "fold" and segment.text.startswith(RESULT_OF):
            yield Seen(None, at, at)
        elif auto and segment.role == "assistant" and segment.kind in ("tool_call", "text"):
            found = _called(segment.text) if segment.kind == "tool_call" else _said(segment.text)
            if found is not None:
                yield Seen(found, at, lasts[segment.group or segment.id])


def pending(messages: Sequence[Message]) -> tuple[str, ...]:
    """Ids of the tool calls that still wait for their answers; a call that somebody spoke after waits no more."""
    waiting: dict[str, None] = {}
    for message in messages:
        if message.tool_call_ids:
            waiting = waiting if message.bound else {}
            waiting.update(dict.fromkeys(message.tool_call_ids))
        elif message.tool_call_id is not None or message.answers:
            for answered in (message.tool_call_id, *message.answers):
                waiting.pop(answered or "", None)
        elif message.kind is None:
            waiting = {}
    return tuple(waiting)


def last_said(segments: Sequence[Segment]) -> str:
    """The newest text of the assistant that is no mark: what a sub-agent leaves as its answer."""
    said = [segment for segment in segments if segment.role == "assistant" and segment.kind == "text"]
    groups = ["".join(piece.text for piece in pieces).strip() for _, pieces in groupby(said, key=owner)]
    return next((text for text in reversed(groups) if text and _said(text) is None), "")


def _called(text: str) -> Mark | None:
    """What the calls of one message mark. A subtask is begun by a call of its own, not beside others."""
    calls = _calls(text)
    ends = (_ending(name, arguments) for name, arguments in calls)
    end = next((mark for mark in ends if mark is not None), None)
    return end or (_beginning(*calls[0]) if len(calls) == 1 else None)


def _ending(name: str, arguments: dict[str, Any]) -> Mark | None:
    if name == RETURN:
        return Mark("return", "", _string(arguments, "answer"))
    return Mark("return", "", "") if name.startswith(_BACK) else None


def _beginning(name: str, arguments: dict[str, Any]) -> Mark | None:
    if name == BEGIN:
        return Mark("open", "", _string(arguments, "task"))
    return Mark("open", "", name.removeprefix(_HANDOFF)) if name.startswith(_HANDOFF) else None


def _said(text: str) -> Mark | None:
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    return Mark("open" if found[1] == "subtask" else "return", "", found[2].strip().removesuffix("]"))


def _calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the calls in a segment."""
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return []
    made = decoded if isinstance(decoded, list) else [{"function": decoded}]
    functions = [one.get("function") for one in made if isinstance(one, dict)]
    return [(str(f.get("name", "")), _arguments(f.get("arguments"))) for f in functions if isinstance(f, dict)]


def _arguments(written: Any) -> dict[str, Any]:
    try:
        decoded = json.loads(written) if isinstance(written, str) else written
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _string(arguments: dict[str, Any], name: str) -> str:
    value = arguments.get(name, "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
