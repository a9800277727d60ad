"""From token ids to text that may be sent: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


class Detokenizer:
    """Decodes token by token. A character that spans tokens is held until it is whole.

    Worked example: an emoji of two tokens gives "" and then the emoji; one whose second token never comes gives
    U+FFFD at the end.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []  # decoded with what follows: a token's blank depends on what stands before it
        self._held: list[int] = []
        self._sent = 0  # characters of the held tokens that went out

    def push(self, token: int) -> str:
        """The text that a token completes."""
        self._held.append(token)
        text = self._text()
        whole = text.rstrip(_REPLACEMENT)
        fresh = whole[self._sent :]
        if len(whole) == len(text):
            self._before, self._held, self._sent = self._held, [], 0
        else:
            self._sent = max(self._sent, len(whole))
        return fresh

    def finish(self) -> str:
        """What is still held, as it is."""
        rest = self._text()[self._sent :]
        self._before, self._held, self._sent = self._held, [], 0
        return rest

    def _text(self) -> str:
        """The held tokens' text."""
        before = self._decode(self._before)
        return self._decode(self._before + self._held)[len(before) :]


class StopStrings:
    """Lets text through up to the first stop string, holding back what may become one.

    Worked example with the stop "END": "a E" lets "a " through, "NX" then "ENX", "END" ends it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The text that may be sent now; `hit` is set once a stop string came."""
        if self.hit:
            return ""
        self._held += text
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            self.hit = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible())

    def finish(self) -> str:
        """What is still held: no stop string can come any more."""
        return "" if self.hit else self._release(len(self._held))

    def _possible(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        ends = (length for length in range(longest, 0, -1))
        return next((n for n in ends if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text
