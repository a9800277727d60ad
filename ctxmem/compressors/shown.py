"""What compression left out, shown to people, and an answer's quotations found again in the source."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctxmem.compressors.outcome import Compressed

_WORD = re.compile(r"\w+")
_PLACES = 64
"""Most places in the source that one quotation is looked for at."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ctxmem: {before} to {after} tokens</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em;
  color-scheme: light dark; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }}
del {{ color: #b3261e; background: #b3261e1f; }}
</style></head><body>
<p>{headline}</p>
<pre>{body}</pre>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A quotation in an answer and where it stands in the source; all offsets in characters.

    Attributes:
        start: where it begins in the answer.
        end: where it ends there.
        source_start: where it begins in the source.
        source_end: where it ends there; what was left out between its words lies inside.
    """

    start: int
    end: int
    source_start: int
    source_end: int


@dataclass(frozen=True, slots=True)
class _Words:
    """Words of a text with their offsets, casefolded."""

    words: list[str]
    spans: list[tuple[int, int]]


def headline(done: Compressed) -> str:
    """What happened, in one line."""
    saved = done.tokens_before - done.tokens_after
    share = f" ({100 * saved / done.tokens_before:.0f} % less)" if done.tokens_before else ""
    reason = f"; unchanged: {done.reason}" if done.reason else ""
    scored = f"; scored by {done.scored_by}" if done.scored_by else ""
    return f"{done.tokens_before:,} to {done.tokens_after:,} tokens{share}{reason}{scored}"


def explain(done: Compressed) -> str:
    """The headline, then a line for each stretch that was left out: offsets, reason, words."""
    lines = [headline(done)]
    lines += [f"{cut.start}-{cut.end}\t{cut.why}\t{done.source[cut.start : cut.end]!r}" for cut in done.dropped]
    return "\n".join(lines)


def diff_html(done: Compressed) -> str:
    """A page that needs nothing else: the source with what was left out struck through, the reason on hover."""
    pieces, at = [], 0
    for cut in done.dropped:
        pieces.append(escape(done.source[at : cut.start]))
        pieces.append(f'<del title="{escape(cut.why)}">{escape(done.source[cut.start : cut.end])}</del>')
        at = cut.end
    pieces.append(escape(done.source[at:]))
    return _PAGE.format(
        before=done.tokens_before, after=done.tokens_after, headline=escape(headline(done)), body="".join(pieces)
    )


def align(done: Compressed, answer: str, *, least: int = 2) -> tuple[Aligned, ...]:
    """Where in the source the answer's words come from: the longest runs of words that what was kept has too.

    Args:
        done: what the answer's writer was given.
        answer: the answer.
        least: words of the shortest run that counts as a quotation.
    """
    kept, said = _kept_words(done), _cut_up(answer, [(0, len(answer))])
    places = _places(kept.words, least)
    return tuple(_runs(kept, said, places, least))


def _runs(kept: _Words, said: _Words, places: dict[tuple[str, ...], list[int]], least: int) -> Iterator[Aligned]:
    at = 0
    while at + least <= len(said.words):
        found = places.get(tuple(said.words[at : at + least]), [])
        length, place = max(((_alike(kept.words, one, said.words, at), -one) for one in found), default=(0, 0))
        if not length:
            at += 1
            continue
        first, last = -place, -place + length - 1
        yield Aligned(said.spans[at][0], said.spans[at + length - 1][1], kept.spans[first][0], kept.spans[last][1])
        at += length


def _alike(kept: Sequence[str], i: int, said: Sequence[str], j: int) -> int:
    """Words in common from there on."""
    length = 0
    while i + length < len(kept) and j + length < len(said) and kept[i + length] == said[j + length]:
        length += 1
    return length


def _places(words: Sequence[str], least: int) -> dict[tuple[str, ...], list[int]]:
    places: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(words) - least + 1):
        known = places.setdefault(tuple(words[i : i + least]), [])
        if len(known) < _PLACES:
            known.append(i)
    return places


def _kept_words(done: Compressed) -> _Words:
    return _cut_up(done.source, done.kept(len(done.source)))


def _cut_up(text: str, stretches: Sequence[tuple[int, int]]) -> _Words:
    """The words that lie in these stretches of a text."""
    starts = [start for start, _ in stretches]
    found = _Words([], [])
    for match in _WORD.finditer(text):
        number = bisect_right(starts, match.start()) - 1
        if number >= 0 and match.end() <= stretches[number][1]:
            found.words.append(match[0].casefold())
            found.spans.append(match.span())
    return found
