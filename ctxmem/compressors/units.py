"""Cuts a text into the units that pruning keeps or drops: phrases, sentences or lines.

Units are stretches of the source, given by offsets; each carries the whitespace before it. They tile the text: put one
after the other they are the source again, hard spans included.

A phrase is a run of at most four content words, or a run of stop words, broken at punctuation and newlines: a chunker
without a model that does as well as a parser's noun chunks for pruning (measured for ctxmem).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from ctxmem.compressors import protect
from ctxmem.compressors.words import PARTICLES, stop

UnitKind = Literal["text", "hard", "frame"]
UnitName = Literal["phrase", "sentence", "block"]

PHRASE_WORDS = 4
CLAUSE_WORDS = 120

_CJK = r"\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W{_CJK}]"
_SIGN = r"[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u109f\u1780-\u17d3\u200c\u200d]"
_EMOJI_TAIL = r"(?:[\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]|\u200d[^\w\s])*"
_PARTICLE = f"[{PARTICLES}]"
_ATOM = re.compile(
    "|".join(
        [
            *(rf"(?P<{kind}>{pattern})" for kind, _, pattern in protect.ATOMS),
            rf"(?P<word>{_LETTER}+(?:{_SIGN}+{_LETTER}*)*(?:['’.,\-/:@&+]{_LETTER}+){{0,8}}(?:\({_LETTER}*\))?"
            rf"|{_PARTICLE}|[\u3041-\u309f]+|[\u30a0-\u30ff]+|[\u3400-\u9fff\uf900-\ufaff]{{1,2}}?(?={_PARTICLE})"
            r"|[\u3400-\u9fff\uf900-\ufaff]{1,2})",
            r"(?P<space>\s+)",
            r"(?P<end>[.!?;…]+[\"'”’»]*(?=[\s)\]}]|\Z)|[。！？；．]+[」』”’]*)",
            r"(?P<left>[(\[{])",
            r"(?P<right>[)\]}])",
            rf"(?P<mark>[^\w\s]{_EMOJI_TAIL})",
        ]
    )
)
_WEIGHTS = {kind: weight for kind, weight, _ in protect.ATOMS}
_PAIRS = {")": "(", "]": "[", "}": "{"}
_ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Fig|e\.g|i\.e|cf|al|Jr|Sr|Inc|Ltd))\Z")


@dataclass(slots=True)
class Unit:
    """A stretch of the source that is kept or dropped as one.

    Attributes:
        start: offset of the whitespace before it.
        body: offset of its first character that is not whitespace.
        end: offset after its last character.
        kind: `text` is pruned by score; `hard` always stays; `frame` (bracket, full stop, tag of a paragraph) stays
            with what it frames.
        words: its words.
        weight: how much it should stay beyond its score, in [0, 1].
        scope: for a frame, indexes of the units it frames: first, and one after the last.
    """

    start: int
    body: int
    end: int
    kind: UnitKind = "text"
    words: tuple[str, ...] = ()
    weight: float = 0.0
    scope: tuple[int, int] = (0, 0)


def phrases(text: str) -> list[Unit]:
    """Cut into phrases; brackets and sentence ends become frames.

    >>> text = "The treaty was signed in Paris (France)."
    >>> [text[unit.body : unit.end] for unit in phrases(text)]
    ['The', 'treaty', 'was', 'signed', 'in', 'Paris', '(', 'France', ')', '.']
    """
    return _cut(text, "phrase")


def sentences(text: str) -> list[Unit]:
    """Cut after . ! ? ; and their CJK kin, and at newlines; sentences over 120 words also after a comma."""
    return _cut(text, "sentence")


def blocks(text: str) -> list[Unit]:
    """Cut at newlines: paragraphs, list items, lines of a log."""
    return _cut(text, "block")


SPLITS: dict[UnitName, Callable[[str], list[Unit]]] = {"phrase": phrases, "sentence": sentences, "block": blocks}
"""By name of the unit."""


def _cut(text: str, unit: UnitName) -> list[Unit]:
    chunker = _Chunker(text, unit)
    position = 0
    hard, tags = protect.spans(text)
    for span in sorted((*hard, *tags)):
        chunker.read(position, span.start)
        if span in tags:
            chunker.tag(span, opens=span < tags[span])
        else:
            chunker.hard(span)
        position = span.end
    chunker.read(position, len(text))
    units = chunker.finish()
    _weigh(units, protect.soft(text))
    return units


@dataclass(slots=True)
class _Chunker:
    """Reads atoms from left to right and closes units.

    Attributes:
        text: the source.
        unit: what to cut into.
        units: units so far; the last may still grow while `growing`.
        position: end of the last unit; whitespace read since then belongs to the next.
        growing: whether the last unit may take more words.
        stopped: whether the last unit is a run of stop words; None while it has no word.
        words: words of the last unit.
        sentence: index of the sentence's first unit.
        brackets: open brackets: character and unit index.
        tags: unit indexes of the tags of open elements.
    """

    text: str
    unit: UnitName
    units: list[Unit] = field(default_factory=list)
    position: int = 0
    growing: bool = False
    stopped: bool | None = None
    words: list[str] = field(default_factory=list)
    sentence: int = 0
    brackets: list[tuple[str, int]] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)

    def read(self, start: int, end: int) -> None:
        """Cut the stretch between two hard spans."""
        phrase = self.unit == "phrase"
        for match in _ATOM.finditer(self.text, start, end):
            kind = match.lastgroup or "word"
            if kind == "space":
                self._space(match[0])
            elif kind == "end":
                self._stop(match)
            elif kind == "mark" or (kind in ("left", "right") and not phrase):
                self._mark(match)
            elif kind in ("left", "right"):
                self._bracket(match)
            else:
                self._word(match, _WEIGHTS.get(kind, 0.0))

    def hard(self, span: protect.Span) -> None:
        """Take a hard span as a unit of its own."""
        self._close()
        self.units.append(Unit(self.position, span.start, span.end, "hard", weight=1.0))
        self.position = span.end

    def tag(self, span: protect.Span, *, opens: bool) -> None:
        """Take one of an element's two tags as a frame around what stands between them."""
        self._close()
        index = len(self.units)
        self.units.append(Unit(self.position, span.start, span.end, "frame", scope=(index, index)))
        self.position = span.end
        if opens:
            self.tags.append(index)
        else:
            opened = self.tags.pop()
            self.units[opened].scope = self.units[index].scope = (opened + 1, index)

    def finish(self) -> list[Unit]:
        """The units; whitespace at the end of the text becomes a frame around all of them."""
        self._close()
        for _, index in self.brackets:
            self.units[index].scope = (index + 1, min(index + 2, len(self.units)))
        if self.position < len(self.text):
            number = len(self.units)
            self.units.append(Unit(self.position, len(self.text), len(self.text), "frame", scope=(0, number)))
        return self.units

    def _word(self, match: re.Match[str], weight: float) -> None:
        content = weight > 0 or not stop(match[0])
        full = len(self.words) >= PHRASE_WORDS if content else False
        if self.unit == "phrase" and (content == self.stopped or full):
            self._close()
        self._grow(match)
        self.stopped = not content
        self.words += match[0].strip(protect.QUOTES).split() if weight else [match[0]]
        self.units[-1].weight = max(self.units[-1].weight, weight)

    def _mark(self, match: re.Match[str]) -> None:
        """Punctuation belongs to the word it touches and ends its phrase; after a space it opens the next."""
        if not (self.units and self.units[-1].kind == "text" and match.start() == self.position):
            if self.unit == "phrase":
                self._close()
            self._grow(match)
            return
        self.units[-1].end = self.position = match.end()
        long = self.unit == "sentence" and len(self.words) > CLAUSE_WORDS and match[0] in ",:"
        if long or (self.unit == "phrase" and self.words):
            self._close()

    def _stop(self, match: re.Match[str]) -> None:
        if match[0] == "." and _ABBREVIATION.search(self.text, max(0, match.start() - 6), match.start()):
            self._mark(match)
        elif self.unit == "phrase":
            self._close()
            self.units.append(self._frame(match, (self.sentence, len(self.units))))
            self.sentence = len(self.units)
        else:
            self._grow(match)
            if self.unit == "sentence":
                self._close()

    def _bracket(self, match: re.Match[str]) -> None:
        self._close()
        index, char = len(self.units), match[0]
        scope = (max(0, index - 1), index)
        if match.lastgroup == "left":
            self.brackets.append((char, index))
        elif self.brackets and self.brackets[-1][0] == _PAIRS[char]:
            _, opened = self.brackets.pop()
            scope = (opened + 1, index)
            self.units[opened].scope = scope
        self.units.append(self._frame(match, scope))

    def _space(self, space: str) -> None:
        if "\n" in space:
            self._close()
            self.sentence = len(self.units)

    def _frame(self, match: re.Match[str], scope: tuple[int, int]) -> Unit:
        unit = Unit(self.position, match.start(), match.end(), "frame", scope=scope)
        self.position = match.end()
        return unit

    def _grow(self, match: re.Match[str]) -> None:
        if self.growing:
            self.units[-1].end = match.end()
        else:
            self.units.append(Unit(self.position, match.start(), match.end()))
            self.growing = True
        self.position = match.end()

    def _close(self) -> None:
        if self.growing:
            self.units[-1].words = tuple(self.words)
        self.words = []
        self.growing = False
        self.stopped = None


def _weigh(units: list[Unit], spans: Iterable[protect.Span]) -> None:
    """Give every unit that a soft span overlaps at least the span's weight."""
    ends = [unit.end for unit in units]
    for span in spans:
        for i in range(bisect_left(ends, span.start + 1), len(units)):
            unit = units[i]
            if unit.body >= span.end:
                break
            unit.weight = max(unit.weight, span.weight)
