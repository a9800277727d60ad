"""Which scopes are open: a stack, and the rules of what may happen to it. Pure values.

Only the innermost scope may return, be reduced or be aborted; the nearest match is PENCIL's rule (the authors'
`reduce_encoding_tensor`), and here it is refused aloud instead of guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctxmem.compressors.pencil.marks import Mark
from ctxmem.errors import Conflict, InvalidInput

Visibility = Literal["inherit", "isolated"]
"""Whether a scope goes on where it was opened and sees what came before it, or sees its task and what it is given."""

MOST_DEPTH = 8
"""Scopes that may be open in one another."""
MOST_TASK = 2_000
"""Characters of a task."""
MOST_ANSWER = 16_000
"""Characters of an answer; the tokens are bounded where there is a counter."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An open scope.

    Attributes:
        scope: its id.
        task: what it is to do.
        at: where it begins, in the owner's own measure.
    """

    scope: str
    task: str
    at: int


Frames = tuple[Frame, ...]


def pushed(frames: Frames, frame: Frame, *, most: int = MOST_DEPTH) -> Frames:
    """The stack with one more scope open.

    Raises:
        InvalidInput: the task is empty or too long.
        Conflict: too many scopes are open in one another.
    """
    text("task", frame.task, MOST_TASK)
    if len(frames) >= most:
        raise Conflict(f"{len(frames)} subtasks are open in one another; return from one of them first")
    return (*frames, frame)


def innermost(frames: Frames, mark: Mark, pending: Sequence[str] = ()) -> Frame:
    """The frame that a mark ends or reduces.

    Args:
        frames: the stack.
        mark: what is to happen.
        pending: ids of tool calls inside that are unanswered.

    Raises:
        InvalidInput: the answer is empty or too long.
        Conflict: the scope is not the innermost open one, or a tool call in it is unanswered.
    """
    if not frames or frames[-1].scope != mark.scope:
        inner = f"the innermost open one is {frames[-1].scope}" if frames else "none is open"
        raise Conflict(f"subtask {mark.scope} cannot {mark.act}: {inner}")
    if pending and mark.act != "abort":
        raise Conflict(f"subtask {mark.scope} cannot {mark.act}: unanswered tool calls: {', '.join(pending[:5])}")
    text({"return": "answer", "tail": "task", "abort": "reason"}[mark.act], mark.text, MOST_ANSWER)
    return frames[-1]


def reduced(frames: Frames, mark: Mark) -> Frames:
    """The stack after the innermost scope has ended, or goes on with a smaller task."""
    return (*frames[:-1], replace(frames[-1], task=mark.text)) if mark.act == "tail" else frames[:-1]


def text(name: str, value: str, most: int) -> None:
    """Refuse a text that is empty or too long.

    Raises:
        InvalidInput: it is.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{name} must not be empty", param=name)
    if len(value) > most:
        raise InvalidInput(f"{name} has {len(value)} characters, at most {most} are taken: shorten it", param=name)
