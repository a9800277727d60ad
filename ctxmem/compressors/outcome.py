"""What comes out of compressing a text or messages once."""

from __future__ import annotations

from dataclasses import dataclass

from ctxmem.compressors import shown
from ctxmem.types import Message


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """A stretch of the source that was left out.

    Attributes:
        start: character offset of its first character.
        end: character offset after its last.
        why: the reason in a few words.
    """

    start: int
    end: int
    why: str


@dataclass(frozen=True, slots=True)
class Compressed:
    """What came out.

    Attributes:
        tokens_before: tokens of what came in.
        tokens_after: tokens of what came out; never more.
        dropped: what was left out, in order. For messages, offsets count through the texts of all messages, one after
            the other.
        reason: why everything stayed as it was; empty when it did not.
        text: the text; None for messages.
        messages: the messages, with the ids m0, m1, ... of their places in the source; None for a text.
        scored_by: name of the scorer that decided; with the reason in brackets when it was the fallback. Empty when
            nothing was scored.
        cached: whether the decision was made before and is replayed.
        source: what `dropped` counts in: the text; of messages, their texts one after the other.
    """

    tokens_before: int
    tokens_after: int
    dropped: tuple[Cut, ...] = ()
    reason: str = ""
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    scored_by: str = ""
    cached: bool = False
    source: str = ""

    def explain(self) -> str:
        """What happened in one line, then a line for each stretch that was left out."""
        return shown.explain(self)

    def diff_html(self) -> str:
        """A page that needs nothing else, with what was left out struck through."""
        return shown.diff_html(self)

    def align(self, answer: str) -> tuple[shown.Aligned, ...]:
        """Where in the source the words of an answer come from; see `Aligned`."""
        return shown.align(self, answer)

    def kept(self, length: int) -> tuple[tuple[int, int], ...]:
        """The stretches of a source of `length` characters that stayed, whitespace at their edges aside.

        >>> Compressed(9, 4, (Cut(4, 9, "tells little"),)).kept(20)
        ((0, 4), (9, 20))
        """
        edges = [0, *(edge for cut in self.dropped for edge in (cut.start, cut.end)), length]
        return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)
