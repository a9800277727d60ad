"""Prompts of the updater: what is stable stands first, so that a provider's prompt cache finds it again.

Rules are the system message; goal, pins, state and results come in a user message, never in the system role, and there
is no assistant prefill, which several providers refuse. A result stands between two lines with a random mark that is
made once a session, and its angle brackets are replaced: it can neither close its fence nor open a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from secrets import randbelow
from typing import Literal

from ctxmem import chat
from ctxmem.compressors.mem1.apply import Turn
from ctxmem.compressors.mem1.state import State, cut, neutral
from ctxmem.ports import Counter
from ctxmem.types import Message

Mode = Literal["patch", "rewrite"]


def rules(name: str) -> str:
    """The text of a prompt beside this module: `patch` or `rewrite`."""
    return (files("ctxmem.compressors.mem1") / f"{name}.txt").read_text("utf-8").strip()


def mark() -> str:
    """A session's mark: nine random digits, which are three tokens where eight hexadecimal ones are six or more."""
    return f"{randbelow(10**9):09d}"


def fenced(text: str, fence: str, head: str = "") -> str:
    """A result as data: between two lines with the session's mark, without a tag in it.

    Args:
        text: the result.
        fence: the mark.
        head: what is said of the result on its first line, in our own words.
    """
    opening = f"--- {fence} {head}".rstrip()
    return f"{opening}\n{neutral(text).replace(fence, '')}\n--- {fence}"


def headed(state: State) -> str:
    """Goal, pins and items as the model sees them."""
    return f"{state.text()}" if state.items or state.head else "(nothing is known yet)"


def clipped(text: str, limit: int, count: Counter, handle: str) -> str:
    """The text within `limit` tokens: its head and its tail, and how to get the rest."""
    tokens = count.texts([text])[0]
    if tokens <= limit:
        return text
    note = f"[cut: {tokens} -> {limit} tokens, recall {handle}]"
    room = max(2, limit - count.texts([note])[0] - 2)
    head = cut(text, room * 2 // 3, count)
    tail = _last(text[len(head) :], room - room * 2 // 3, count)
    return f"{head}\n{note}\n{tail}"


def update(state: State, turns: Sequence[Turn], mode: Mode, fence: str) -> tuple[Message, ...]:
    """The prompt that asks for an update of the state.

    Args:
        state: what is known.
        turns: what was said since, each already within its budget.
        mode: operations, or the whole state anew.
        fence: the session's mark.
    """
    said = "\n".join(f"[{turn.role} {turn.id}] {turn.text}" for turn in turns)
    shown = f"{headed(state)}\n\nSaid since:\n{fenced(said, fence)}"
    return chat.build("system", rules(mode)), chat.build("user", shown)


def again(asked: Sequence[Message], error: str) -> tuple[Message, ...]:
    """The same prompt with what was wrong with the first answer."""
    last = asked[-1]
    note = f"{last.text}\n\nYour last answer could not be read ({error}). Answer again, exactly in the form asked for."
    return (*asked[:-1], chat.build(last.role, note))


def _last(text: str, limit: int, count: Counter) -> str:
    """The end of a text within `limit` tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count.texts([text[middle:]])[0] <= limit else (middle + 1, high)
    return text[low:].lstrip()
