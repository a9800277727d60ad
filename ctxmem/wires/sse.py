"""Server-sent events of an answer: a byte tee that holds back the end, and the message that chat's deltas make up.

While the answer streams, the tee looks for one thing only: the line that opens the terminating event. Everything before
it passes at once as the bytes that came. What the events said is put together afterwards, by `assemble`.
Format: WHATWG HTML, "Server-sent events" (lines end in CR, LF or CRLF; `:` starts a comment).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ctxmem.wires.completion import Answer, usage_of

ENDINGS = (b"data: [DONE]", b"data:[DONE]")
"""How the terminating event of a chat completion may open."""
_LINE_END = re.compile(rb"\r\n|\r|\n")
_ONCE = frozenset({"role", "id", "type", "name", "index", "call_id", "format", "expires_at"})
"""Members that a piece repeats or replaces; other texts are pieces to be joined."""


class Tee:
    """Passes a stream's bytes on and keeps a copy; from the terminating event on it holds them back.

    Args:
        endings: how the first line of the terminating event may open.

    Attributes:
        done: whether the terminating event has come.
    """

    def __init__(self, endings: tuple[bytes, ...] = ENDINGS) -> None:
        self.done = False
        self._endings = endings
        self._end_line = re.compile(rb"(?:\A|(?<=[\r\n]))(?:" + b"|".join(map(re.escape, endings)) + b")")
        self._kept: list[bytes] = []
        self._held = b""
        self._line_start = True

    @property
    def received(self) -> bytes:
        """All bytes so far."""
        return b"".join(self._kept)

    @property
    def held(self) -> bytes:
        """Bytes not passed on yet: the terminating event and what follows it."""
        return self._held

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of any length; returns those that may go on now."""
        self._kept.append(chunk)
        window = self._held + chunk
        if self.done:
            self._held = window
            return b""
        cut = self._end(window)
        passed, self._held = window[:cut], window[cut:]
        if passed:
            self._line_start = passed.endswith((b"\n", b"\r"))
        return passed

    def _end(self, window: bytes) -> int:
        """How many bytes come before the terminating event, or before what may become its first line."""
        found = self._end_line.search(window)
        while found and found.start() == 0 and not self._line_start:
            found = self._end_line.search(window, found.end())
        if found:
            self.done = True
            return found.start()
        last = max(window.rfind(b"\n"), window.rfind(b"\r")) + 1
        line = window[last:]
        starts_line = last > 0 or self._line_start
        return last if line and starts_line and any(end.startswith(line) for end in self._endings) else len(window)


@dataclass(slots=True)
class _Choice:
    """A choice as far as its deltas have come."""

    message: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


def assemble(stream: bytes) -> Answer:
    """What the events of a stream said.

    There is one message for each choice; they are complete when each has a finish reason and no error event came.
    """
    choices: dict[int, _Choice] = {}
    usage: dict[str, int] = {}
    failed = False
    for payload in events(stream):
        chunk = _decoded(payload)
        failed = failed or bool(chunk.get("error"))
        usage = usage_of(chunk.get("usage")) or usage
        for piece in _objects(chunk.get("choices")):
            _take(choices.setdefault(_index(piece), _Choice()), piece)
    said = [choices[index] for index in sorted(choices) if choices[index].message]
    complete = bool(said) and all(choice.finished for choice in said) and not failed
    return Answer(tuple(msgspec.json.encode(_message(choice.message)) for choice in said), complete, usage)


def events(stream: bytes) -> Iterator[bytes]:
    """The data of each event that ended with an empty line, several data lines joined."""
    data: list[bytes] = []
    for line in _LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []


def merge(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a delta to what came before it, in place.

    >>> said = {"content": "Hel"}
    >>> merge(said, {"content": "lo", "role": "assistant"})
    >>> said
    {'content': 'Hello', 'role': 'assistant'}
    """
    for key, value in delta.items():
        before = whole.get(key)
        if isinstance(before, str) and isinstance(value, str) and key not in _ONCE:
            whole[key] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            merge(before, value)
        elif isinstance(value, list):
            whole[key] = _merged_list(before if isinstance(before, list) else [], value)
        elif value is not None or key not in whole:
            whole[key] = value


def _merged_list(before: list[Any], pieces: list[Any]) -> list[Any]:
    """Pieces with an index join the entry of that index; others are added at the end."""
    merged = list(before)
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        same = [entry for entry in _objects(merged) if index is not None and entry.get("index") == index]
        if same:
            merge(same[0], piece)
        elif isinstance(piece, dict):
            merged.append({})
            merge(merged[-1], piece)
        else:
            merged.append(piece)
    return merged


def _take(choice: _Choice, piece: dict[str, Any]) -> None:
    delta = piece.get("delta")
    if isinstance(delta, dict):
        merge(choice.message, delta)
    choice.finished = choice.finished or piece.get("finish_reason") is not None


def _message(said: Mapping[str, Any]) -> dict[str, Any]:
    """The message as a client would send it back: role first, tool calls in order without their stream index."""
    message = {"role": "assistant", "content": None, **said}
    calls = sorted(_objects(said.get("tool_calls")), key=_index)
    if calls:
        message["tool_calls"] = [{key: value for key, value in call.items() if key != "index"} for call in calls]
    return message


def _objects(members: Any) -> list[dict[str, Any]]:
    """The objects of a list; none when it is no list."""
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _index(piece: Mapping[str, Any]) -> int:
    index = piece.get("index")
    return index if isinstance(index, int) else 0


def _decoded(payload: bytes) -> dict[str, Any]:
    """The event's object; anything else, `[DONE]` included, is empty."""
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
