"""What a result repeats of those before it is said once: searches give the same documents again and again.

Loses nothing: the first place stays in the prompt, and a pointer names it. Runs of words are compared, whatever the
white space between them, so a document counts as the same under another number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LEAST = 24
"""Words that a run must have to be replaced: far more than its start and the pointer take."""

LEAD = 5
"""Words of a run that stay, so that the reader sees what is meant."""

_WORD = re.compile(r"\S+")
_Run = tuple[str, ...]


@dataclass(slots=True)
class Repeats:
    """The results shown so far in one prompt; time and space are linear in their words."""

    _words: dict[str, list[str]] = field(default_factory=dict)
    _first: dict[_Run, tuple[str, int]] = field(default_factory=dict)

    def pointed(self, text: str, handle: str) -> str:
        """The text with a pointer for each long run of words that an earlier one has; it is then one of them.

        Args:
            text: a result.
            handle: its name, for pointers to it.
        """
        spans = [match.span() for match in _WORD.finditer(text)]
        words = [text[start:end] for start, end in spans]
        pieces: list[str] = []
        at = copied = 0
        while at + LEAST <= len(words):
            found = self._first.get(tuple(words[at : at + LEAST]))
            end = _whole(text, spans, at + self._same(words, at, *found)) if found else at
            if found is None or end - at < LEAST:
                at += 1
                continue
            pieces += [text[copied : spans[at + LEAD - 1][1]], f" [… as in {found[0]}]"]
            at, copied = end, spans[end - 1][1]
        self._take(words, handle)
        return "".join([*pieces, text[copied:]])

    def _same(self, words: list[str], at: int, handle: str, there: int) -> int:
        """How many words are the same from a place here and from one in an earlier text."""
        earlier = self._words[handle]
        most = min(len(words) - at, len(earlier) - there)
        return next((n for n in range(LEAST, most) if words[at + n] != earlier[there + n]), most)

    def _take(self, words: list[str], handle: str) -> None:
        self._words[handle] = words
        for at in range(len(words) - LEAST + 1):
            self._first.setdefault(tuple(words[at : at + LEAST]), (handle, at))


def _whole(text: str, spans: list[tuple[int, int]], end: int) -> int:
    """The end of a run without the first words of the next line, which only happen to be the same."""
    starts = range(end - 1, max(0, end - LEAST), -1)
    if end == len(spans) or "\n" in text[spans[end - 1][1] : spans[end][0]]:
        return end
    return next((n for n in starts if "\n" in text[spans[n - 1][1] : spans[n][0]]), end)
