"""Following names inside a text: a section that a good passage names by its heading comes up behind that passage.

What answers a question of two hops ("a senator from what state was the candidate of the campaign?") shares next to no
word with it; the first hop names the section in which it stands. The same is done for search results in
`ctxmem.retrieval.links`, whose docstring has the sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ctxmem.headings import folded, name

SOURCES = 10
"""Passages whose words are followed: the best."""

GAIN = 2.0
"""Most that the passages of a named section gain, in deviations; `bench/compression.py --dev` chose both."""

_SHARED = 3
"""A name gains half as much when passages of so many sections say it."""

_APART = 1e-3
_HEADING = re.compile(r"\s*(?:#{1,6}\s+)?(?:(?P<title>[^\n:!?;]{3,80}):(?=\s)|(?P<line>[^\n:.!?;]{3,80})\Z)")


def followed(scores: Sequence[float], passages: Sequence[str], sections: Sequence[int], asked: str) -> list[float]:
    """The scores, raised in sections that better passages name; no passage passes the one that names it.

    Args:
        scores: of each passage, in deviations.
        passages: the text, cut up.
        sections: of each passage, the number of its section; never falls.
        asked: the question; what it names is looked for already.
    """
    risen = list(scores)
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:SOURCES]
    words = [folded(passage) for passage in passages]
    question = folded(asked)
    for heading, members in _named(passages, sections):
        said = f" {heading} "
        first = next((i for i in best if said in words[i] and i not in members), None)
        if first is None or said in question:
            continue
        shared = {sections[i] for i, its in enumerate(words) if said in its and i not in members}
        gain = GAIN / (1 + len(shared) / _SHARED)
        for i in members:
            risen[i] = max(risen[i], min(scores[i] + gain, scores[first] - _APART))
    return risen


def _named(passages: Sequence[str], sections: Sequence[int]) -> Iterator[tuple[str, range]]:
    """Headings that one section alone goes by, with its passages; none when there is but one section."""
    starts = [i for i in range(len(sections)) if not i or sections[i] != sections[i - 1]]
    if len(starts) <= 1:
        return
    bearers: dict[str, list[range]] = {}
    for start, end in zip(starts, [*starts[1:], len(sections)], strict=True):
        match = _HEADING.match(passages[start])
        heading = name(match["title"] or match["line"]) if match else ""
        if heading:
            bearers.setdefault(heading, []).append(range(start, end))
    yield from ((heading, found[0]) for heading, found in bearers.items() if len(found) == 1)
