"""The three tools of PENCIL in an agent's loop: begin a subtask, return its answer, recall what has left.

What a model does wrong becomes the text of a result that it can act on; nothing it writes raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxmem.compressors.mem1.prompts import clipped
from ctxmem.compressors.pencil.check import loose
from ctxmem.compressors.pencil.frames import MOST_DEPTH, Frame
from ctxmem.compressors.pencil.marks import Mark
from ctxmem.compressors.pencil.transcript import Entry, Transcript
from ctxmem.effects import shown
from ctxmem.errors import Conflict, InvalidInput
from ctxmem.ports import Counter

MOST_REFS = 8
"""Handles of one call that are looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a run.

    Attributes:
        max_live: tokens of a prompt; past it the oldest results leave it and can be recalled by their handles.
        b_obs: tokens of one result that are shown; the middle of longer ones is cut and can be recalled.
        max_out: tokens of one answer of the model.
        max_answer: tokens of what a subtask may leave.
        max_depth: subtasks that may be open in one another.

    Raises:
        InvalidInput: one of them is out of range.
    """

    max_live: int = 8000
    b_obs: int = 900
    max_out: int = 512
    max_answer: int = 400
    max_depth: int = MOST_DEPTH

    def __post_init__(self) -> None:
        for name, least in (("max_live", 256), ("b_obs", 16), ("max_out", 1), ("max_answer", 8), ("max_depth", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(f"{name} must be {least} or more, got {value!r}", param=name)


@dataclass(frozen=True, slots=True)
class Folded:
    """A subtask that has returned.

    Attributes:
        scope: its handle.
        task: what it was to do.
        answer: what it left.
        unverified: numbers, addresses, paths and quotations of the answer that stand in no result of the subtask.
    """

    scope: str
    task: str
    answer: str
    unverified: tuple[str, ...] = ()


@dataclass(slots=True)
class Subtasks:
    """The scopes of one run.

    Attributes:
        said: the run's log.
        count: counts in the model's tokens.
        limits: what bounds the run.
        verify: refuse an answer once when something in it stands in no result of the subtask.
        isolated: whether a subtask sees nothing of what came before it.
        goal: the task and what must always hold; what stands there needs no other source.
        folds: the subtasks that have returned, in order.
    """

    said: Transcript
    count: Counter
    limits: Limits
    verify: bool = False
    isolated: bool = False
    goal: str = ""
    folds: list[Folded] = field(default_factory=list)
    _refused: set[str] = field(default_factory=set)

    def begin(self, arguments: Mapping[str, Any]) -> str:
        """Open a subtask; why not, or nothing."""
        try:
            self.said.open(_text(arguments, "task"))
        except (Conflict, InvalidInput) as error:
            return f"error: {error}"
        given = [self._given(handle) for handle in _handles(arguments, "need")]
        if any(given):
            self.said.say("user", "\n".join(text for text in given if text), source="recalled")
        return ""

    def end(self, arguments: Mapping[str, Any], waiting: Sequence[str]) -> str:
        """Return from the innermost subtask; why not, or nothing.

        Args:
            arguments: the answer, and handles that it stands on.
            waiting: calls whose results the model had not seen when it wrote the answer.
        """
        frames = self.said.view.frames
        if not frames:
            return "error: no subtask is open; give the final answer, or begin one"
        frame, answer = frames[-1], _text(arguments, "answer").strip()
        unverified = self._unverified(frame, answer)
        if wrong := self._wrong(frame, answer, unverified):
            return wrong
        see = [f"[see {', '.join(refs)}]"] if (refs := _handles(arguments, "refs")) and answer else []
        doubt = [f"[in no result of the subtask: {', '.join(unverified)}]"] if unverified else []
        try:
            self.said.close(Mark("return", frame.scope, "\n".join([answer, *see, *doubt])), waiting)
        except (Conflict, InvalidInput) as error:
            return f"error: {error}"
        self.folds.append(Folded(frame.scope, frame.task, answer, unverified))
        return ""

    def abort(self, reason: str) -> None:
        """End all subtasks that are open; the reason stays in sight."""
        for frame in reversed(self.said.view.frames):
            self.said.close(Mark("abort", frame.scope, reason))

    def recall(self, asked: str) -> str:
        """What was said under a handle, or is found by a search."""
        return "\n".join(f"[{hit.id}] {hit.text}" for hit in self.said.recall(asked)) or "nothing found"

    def _wrong(self, frame: Frame, answer: str, unverified: Sequence[str]) -> str:
        """Why an answer is not taken as it is; nothing when it is."""
        tokens = self.count.texts([answer])[0]
        if tokens > self.limits.max_answer:
            return f"error: the answer has {tokens} tokens, at most {self.limits.max_answer} are taken: shorten it"
        if unverified and self.verify and frame.scope not in self._refused:
            self._refused.add(frame.scope)
            return f"error: in no result of this subtask: {', '.join(unverified)}. Check, then return the answer again"
        return ""

    def _given(self, handle: str) -> str:
        """An earlier result as a subtask is given it; nothing when it sees it anyway."""
        seen = {entry.id for entry in self.said.view.entries}
        if handle in seen and not self.isolated:
            return ""
        return f"[given {handle}] {clipped(self.recall(handle), self.limits.b_obs, self.count, handle)}"

    def _unverified(self, frame: Frame, answer: str) -> tuple[str, ...]:
        """What in an answer has no source; what the model itself said is none."""
        results = [entry.text for entry in self.said.expand(frame.scope) if _proves(entry)]
        return loose(answer, [self.goal, frame.task, *results])


def _text(arguments: Mapping[str, Any], name: str) -> str:
    """An argument by its name, else the only one there is."""
    value = arguments.get(name, next(iter(arguments.values())) if len(arguments) == 1 else "")
    return value if isinstance(value, str) else shown(value)


def _handles(arguments: Mapping[str, Any], name: str) -> list[str]:
    given = arguments.get(name)
    listed = given if isinstance(given, list) else [given] if isinstance(given, str) else []
    return [one for one in listed if isinstance(one, str) and one.strip()][:MOST_REFS]


def _proves(entry: Entry) -> bool:
    return entry.role == "user" and entry.source != "told"
