"""How much the passages of a text have to do with a query: by meaning, by words, and by the company they keep.

A sum of standard scores: the cosine of an embedder, if there is one; BM25 (Robertson and Zaragoza 2009, "The
Probabilistic Relevance Framework", eq. 3.15, the text's own passages being the collection); a part of the same two for
what the two best passages name (pseudo-relevance feedback), by which a second hop is found; half of the best score in
the same line; and the mean of the passages around it in other lines of its section, since a passage often leaves to its
neighbours what it is about: turns of a talk, clauses of a contract. Then sections that good passages name come up (see
`ctxmem.compressors.links`), and what goes on after a semicolon follows what it goes on from.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log, sqrt

from ctxmem.compressors import links
from ctxmem.compressors.words import stop
from ctxmem.ports import Embedder

K1 = 0.9
B = 0.4
LINE = 0.5
"""Weight of the best score in a passage's line."""

AROUND = 1.0
"""Weight of the mean score of the passages around it in other lines."""

REACH = 5
"""How many passages before and after one are around it."""

GOES_ON = 0.5
"""Part of the score of a passage that ends in a semicolon which the one after it has at least, beside its own."""

BRIDGE = 0.3
"""Weight of what the best passages name: who a question asks about is often named by its first answer alone."""

BRIDGES = 2
"""How many passages are the best."""

Place = tuple[int, int]
"""Where a passage stands: number of its section, which ends at an empty line, and number of its line."""

_WORD = re.compile(r"\w+")
_NAME = re.compile(r"\b(?:[A-Z]\w+|\d{3,}\b)")


@dataclass(frozen=True, slots=True)
class Question:
    """What a text will be asked.

    Attributes:
        text: the question; a tool call's arguments do as well.
        embedder: finds what means the same in other words; None: words alone count.
        threshold: passages whose `likeness` is less are left out even if there is room; None: the budget alone decides.
    """

    text: str
    embedder: Embedder | None = None
    threshold: float | None = None

    def relevance(self, passages: Sequence[str], places: Sequence[Place]) -> tuple[list[float], list[float]]:
        """How much each passage has to do with the question.

        Args:
            passages: the text, cut up.
            places: where each of them stands.

        Returns:
            By passage: its relevance in standard deviations, comparable within the text; and its likeness in [0, 1],
            comparable between texts: the cosine, or the share of the question's words (by rarity) if that is more.
        """
        words = [Tally(_words(passage)) for passage in passages]
        rarity = _rarity(words, set(_words(self.text)))
        found = _standard(_bm25(words, rarity))
        likeness = _covered(words, rarity)
        vectors = self.embedder.embed(passages) if self.embedder is not None and passages else None
        if self.embedder is not None and vectors is not None:
            cosines = (vectors @ self.embedder.embed([self.text], query=True)[0]).tolist()
            found = [one + other for one, other in zip(found, _standard(cosines), strict=True)]
            likeness = [max(one, other) for one, other in zip(likeness, cosines, strict=True)]
        best = sorted(range(len(passages)), key=lambda i: (-found[i], i))[:BRIDGES]
        named = {name for i in best for name in _names(passages[i])} - rarity.keys()
        bridged = _standard(_bm25(words, _rarity(words, named)))
        if vectors is not None:
            near = (vectors @ vectors[best].T).max(axis=1).tolist()
            bridged = [one + other for one, other in zip(bridged, _standard(near), strict=True)]
        found = [one + BRIDGE * other for one, other in zip(found, bridged, strict=True)]
        found = _standard(_with_company(found, places))
        found = links.followed(found, passages, [section for section, _ in places], self.text)
        return _standard(_gone_on(found, passages, places)), likeness


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if not stop(word)]


def _names(passage: str) -> list[str]:
    """Words with a capital, and numbers of three digits and more."""
    return [name.casefold() for name in _NAME.findall(passage) if not stop(name)]


def _rarity(passages: Sequence[Tally[str]], asked: set[str]) -> dict[str, float]:
    """Inverse document frequency of the question's words, in nats."""
    holders = {word: sum(word in passage for passage in passages) for word in sorted(asked)}
    return {word: log(1 + (len(passages) - held + 0.5) / (held + 0.5)) for word, held in holders.items()}


def _bm25(passages: Sequence[Tally[str]], rarity: dict[str, float]) -> list[float]:
    lengths = [sum(passage.values()) for passage in passages]
    typical = sum(lengths) / max(1, len(lengths)) or 1.0
    scores = []
    for passage, length in zip(passages, lengths, strict=True):
        damping = K1 * (1 - B + B * length / typical)
        held = ((weight, passage[word]) for word, weight in rarity.items() if word in passage)
        scores.append(sum(weight * times * (K1 + 1) / (times + damping) for weight, times in held))
    return scores


def _covered(passages: Sequence[Tally[str]], rarity: dict[str, float]) -> list[float]:
    """Share of the question's words that each passage has, weighed by their rarity."""
    total = sum(rarity.values()) or 1.0
    return [sum(weight for word, weight in rarity.items() if word in passage) / total for passage in passages]


def _with_company(scores: Sequence[float], places: Sequence[Place]) -> list[float]:
    lifted = []
    for _, line in groupby(zip(places, scores, strict=True), key=lambda pair: pair[0]):
        own = [score for _, score in line]
        lifted += [score + LINE * max(own) for score in own]
    return [score + AROUND * _around(i, lifted, places) for i, score in enumerate(lifted)]


def _around(at: int, scores: Sequence[float], places: Sequence[Place]) -> float:
    """Mean score of the passages near one, in other lines of its section; 0 when there are none."""
    near = range(max(0, at - REACH), min(len(scores), at + REACH + 1))
    section, line = places[at]
    found = [scores[i] for i in near if places[i][0] == section and places[i][1] != line]
    return sum(found) / len(found) if found else 0.0


def _gone_on(scores: Sequence[float], passages: Sequence[str], places: Sequence[Place]) -> list[float]:
    carried = list(scores)
    for i in range(1, len(carried)):
        if places[i] == places[i - 1] and passages[i - 1].endswith((";", ",")):
            carried[i] = max(carried[i], GOES_ON * carried[i - 1] + (1 - GOES_ON) * carried[i])
    return carried


def _standard(values: Sequence[float]) -> list[float]:
    """Mean 0, standard deviation 1; all 0 when there is no difference."""
    if not values:
        return []
    mean = sum(values) / len(values)
    spread = sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / spread if spread > 1e-9 else 0.0 for value in values]
