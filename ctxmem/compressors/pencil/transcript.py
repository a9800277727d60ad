r"""An agent's log with its scopes, and what of it is shown: a pure function of the log.

Yang et al. 2025 (arXiv 2503.14337), equation 1, at the level of messages: `C [CALL] T [SEP] A [RETURN] => C A`. The log
is append-only; opening, reducing and ending a scope are entries of it. What stands before a scope keeps its bytes.

>>> said = Transcript()
>>> said.say("user", "Which test fails?")
'e1'
>>> scope = said.open("run the tests")
>>> said.say("user", "40 lines of output")
'e3'
>>> said.close(Mark("return", scope, "test_parse fails"))
>>> print(*(entry.text for entry in said.view.entries), sep="\n")
Which test fails?
[subtask f2] run the tests
[result of f2] test_parse fails
>>> said.recall("f2")[0].text
'40 lines of output'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctxmem.compressors.mem1.recall import Hit, Index
from ctxmem.compressors.pencil.frames import MOST_DEPTH, Frame, Frames, innermost, pushed, reduced
from ctxmem.compressors.pencil.marks import Mark, ended, line

Source = Literal["said", "recalled", "told"]
"""Where a text is from: the model or a tool; the log, which need not be found again; the loop, which proves nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was said, or that happened to a scope.

    Attributes:
        id: its handle: `e12`; of what stands for a scope the scope's, `f7`.
        role: user or assistant.
        text: word for word.
        mark: what happens to a scope; None for what was said.
        source: where it is from.
    """

    id: str
    role: str
    text: str
    mark: Mark | None = None
    source: Source = "said"


@dataclass(frozen=True, slots=True)
class View:
    """What is shown.

    Attributes:
        entries: in order; a scope that has ended is one of them.
        frames: the scopes that are open; `at` is the index of what opened each.
    """

    entries: tuple[Entry, ...] = ()
    frames: Frames = ()


def after(view: View, entry: Entry) -> View:
    """What is shown after one more entry of the log."""
    mark = entry.mark
    if mark is None:
        return replace(view, entries=(*view.entries, entry))
    if mark.act == "open":
        frame = Frame(mark.scope, mark.text, len(view.entries))
        return View((*view.entries, entry), (*view.frames, frame))
    frame = view.frames[-1]
    reopened = Mark("open", mark.scope, mark.text)
    text = line(reopened) if mark.act == "tail" else ended(mark, frame.task)
    stands = Entry(mark.scope, "user", text, reopened if mark.act == "tail" else mark)
    return View((*view.entries[: frame.at], stands), reduced(view.frames, mark))


def view(log: Iterable[Entry]) -> View:
    """What is shown after a whole log."""
    shown = View()
    for entry in log:
        shown = after(shown, entry)
    return shown


class Transcript:
    """The log of one run, its view, and the search over all of it. It belongs to one thread at a time."""

    def __init__(self, log: Sequence[Entry] = (), *, depth: int = MOST_DEPTH) -> None:
        """Begin a log, or go on with one.

        Args:
            log: what was said before.
            depth: scopes that may be open in one another.
        """
        self.log: list[Entry] = []
        self.view = View()
        self._depth = depth
        self._index = Index()
        self._texts: dict[str, str] = {}
        for entry in log:
            self._write(entry)

    def say(self, role: str, text: str, *, source: Source = "said") -> str:
        """Log what was said; returns its handle.

        Args:
            role: user or assistant.
            text: word for word.
            source: where it is from.
        """
        handle = f"e{len(self.log) + 1}"
        self._write(Entry(handle, role, text, source=source))
        return handle

    def open(self, task: str) -> str:
        """Begin a scope within the innermost one; returns its handle.

        Raises:
            InvalidInput: the task is empty or too long.
            Conflict: too many scopes are open in one another.
        """
        scope = f"f{len(self.log) + 1}"
        task = " ".join(task.split()) if isinstance(task, str) else task
        pushed(self.view.frames, Frame(scope, task, 0), most=self._depth)
        mark = Mark("open", scope, task)
        self._write(Entry(scope, "user", line(mark), mark))
        return scope

    def close(self, mark: Mark, pending: Sequence[str] = ()) -> None:
        """End or reduce the innermost scope.

        Args:
            mark: what happens.
            pending: calls in it whose results are not in yet.

        Raises:
            InvalidInput: its text is empty or too long.
            Conflict: the scope is not the innermost open one, or a call in it is unanswered.
        """
        innermost(self.view.frames, mark, pending)
        self._write(Entry(f"e{len(self.log) + 1}", "user", line(mark), mark))

    def expand(self, scope: str) -> tuple[Entry, ...]:
        """All that was said in a scope, open or ended; nothing when there is no such scope."""
        number = scope[1:]
        opened = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
        if not 0 < opened <= len(self.log) or not _does(self.log[opened - 1], scope, "open"):
            return ()
        found: list[Entry] = []
        for entry in self.log[opened:]:
            if _does(entry, scope, "return", "abort"):
                break
            if entry.mark is None:
                found.append(entry)
        return tuple(found)

    def recall(self, asked: str, k: int = 5) -> tuple[Hit, ...]:
        """What was said, by the handle of an entry or a scope, else by a search over all of it.

        Args:
            asked: a handle such as `e12` or `f7`, or a query.
            k: how many hits a query gives.
        """
        handle = asked.strip().strip("[]").lower()
        if handle in self._texts:
            return (Hit(handle, self._texts[handle], 1.0),)
        inside = self.expand(handle)
        return tuple(Hit(entry.id, entry.text, 1.0) for entry in inside) or tuple(self._index(asked, k))

    def _write(self, entry: Entry) -> None:
        self.log.append(entry)
        self.view = after(self.view, entry)
        if entry.mark is None:
            self._texts[entry.id] = entry.text
            if entry.source == "said":
                self._index.add(entry.id, entry.text)


def _does(entry: Entry, scope: str, *acts: str) -> bool:
    return entry.mark is not None and entry.mark.scope == scope and entry.mark.act in acts
