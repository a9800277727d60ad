"""The marks of scopes as the model reads them: one line of text each, which is also their record in the log.

>>> line(Mark("open", "f1", "Find the failing test"))
'[subtask f1] Find the failing test'
>>> read(line(Mark("return", "f1", "test_parse: off by one")))
Mark(act='return', scope='f1', text='test_parse: off by one')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Act = Literal["open", "return", "tail", "abort"]

_WORDS: Mapping[Act, str] = {"open": "subtask", "return": "result of", "tail": "reduced", "abort": "aborted"}
_ACTS: Mapping[str, Act] = {words: act for act, words in _WORDS.items()}
_LINE = re.compile(rf"\[({'|'.join(_ACTS)}) (\w+)\] (.*)", re.S)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happens to a scope.

    Attributes:
        act: `open`; `return` and `abort`, which end it; `tail`, which ends it and opens it again with a smaller task.
        scope: the scope's id.
        text: the task, the answer, the reason.
    """

    act: Act
    scope: str
    text: str


def line(mark: Mark) -> str:
    """The mark as text."""
    return f"[{_WORDS[mark.act]} {mark.scope}] {mark.text}"


def read(text: str) -> Mark | None:
    """The mark that `line` wrote; None for any other text."""
    found = _LINE.fullmatch(text)
    return Mark(_ACTS[found[1]], found[2], found[3]) if found else None


def ended(mark: Mark, task: str) -> str:
    """What stands for a scope that `mark` has ended: its task, and its answer or the reason why there is none."""
    return f"{line(Mark('open', mark.scope, task))}\n{line(mark)}"
