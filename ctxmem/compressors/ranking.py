"""In which order the units of a text are worth keeping.

Without a question a unit is worth what it tells: S = (U / sd(U) + a Sal / sd(Sal)) / n^c + b soft, with U the
self-information summed over its n tokens (Li et al. 2023, eq. 2), Sal what its words stand out, soft whether it holds
a number, a negation or an error. The power c = 1/2 of the length leans towards units that say it in fewer tokens: at
c = 1, the mean of the authors' code, numbers go first. A phrase is worth less where its words stand in what is kept
already, and more in a paragraph's first sentence, which says what the others are about. With a question, whole passages
come first, best first, up to a part of the budget; the rest is filled with units by S + w R, R being the relevance of
their passage.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt

from ctxmem.compressors.relevance import Place, Question
from ctxmem.compressors.units import PHRASE_WORDS, Unit, blocks, sentences
from ctxmem.compressors.words import salience, stop
from ctxmem.ports import TokenScores

SHINGLE = 3
REDUNDANT = 0.25
"""What is left of the worth of a unit that only repeats what is kept already."""

REPEATED = 0.3
"""Part of a phrase's worth that goes with its share of words that are kept already."""

LEAD = 0.5
"""Bonus of phrases of a paragraph's first sentence, in standard deviations."""

LEAD_SENTENCES = 3
"""Sentences of the shortest paragraph that has such a first one: turns of a dialogue have none."""

COARSE = 0.9
"""Most of a budget that whole passages take when there is a question."""

COARSE_SOURCE = 0.35
"""Most of the source that they take: what answers a question does not grow with the budget (`bench/RESULTS.md`)."""

GLUE = 0.8
"""What a short run of stop words between two phrases is worth at least, of what the lesser of the two is worth."""

GLUE_TOKENS = 3
"""Tokens of the longest such run."""

_DIGIT = re.compile(r"\d+")
_GAP = re.compile(r"\n[^\S\n]*\n")
_ENDS = ".!?;…。！？；．"


@dataclass(frozen=True, slots=True)
class Weights:
    """What makes a unit worth keeping, besides its self-information in standard deviations.

    Attributes:
        salience: of the words that stand out, in standard deviations.
        soft: bonus of a unit of weight 1 (a number, an error line), in standard deviations.
        length: power of the number of tokens that self-information and salience are divided by.
        relevance: of its passage, in standard deviations.
    """

    salience: float = 1.0
    soft: float = 0.75
    length: float = 0.5
    relevance: float = 1.0


@dataclass(frozen=True, slots=True)
class Worth:
    """What a text's units are worth and cost.

    Attributes:
        text: the source.
        units: its units.
        scores: worth of each.
        tokens: tokens of each, by the scorer's count.
        repeated: part of a unit's worth that goes with its share of words that are kept already.
    """

    text: str
    units: list[Unit]
    scores: list[float]
    tokens: list[int]
    repeated: float = 0.0

    def ranking(self) -> list[int]:
        """Units that may go, best first; ties by position."""
        return _spread_out(self.units, self.scores, [], self.repeated)

    def ranking_for(self, question: Question, share: float, weight: float) -> list[int]:
        """The same, best for a question first, given the share of the text that will stay.

        With a threshold, units of passages below it are not in the ranking at all.
        """
        owners, passages, places = _passages(self.text, self.units)
        relevance, likeness = question.relevance(passages, places)
        scores = [score + weight * relevance[owner] for score, owner in zip(self.scores, owners, strict=True)]
        shut = set()
        if question.threshold is not None:
            shut = {number for number, alike in enumerate(likeness) if alike < question.threshold}
        first = self._coarse(owners, relevance, shut, share)
        units = [unit if owner not in shut else None for unit, owner in zip(self.units, owners, strict=True)]
        return _spread_out(units, scores, first, self.repeated)

    def _coarse(self, owners: Sequence[int], relevance: Sequence[float], shut: set[int], share: float) -> list[int]:
        """Units of the whole passages that come first, in the order of their relevance."""
        members: dict[int, list[int]] = {}
        for i, owner in enumerate(owners):
            members.setdefault(owner, []).append(i)
        room = min(COARSE * share, COARSE_SOURCE) * sum(self.tokens)
        first: list[int] = []
        for number in sorted(members, key=lambda number: (-relevance[number], number)):
            cost = sum(self.tokens[i] for i in members[number])
            if number not in shut and cost <= room:
                room -= cost
                first += [i for i in members[number] if self.units[i].kind == "text"]
        return first


def worth(text: str, units: list[Unit], scores: TokenScores, weights: Weights, *, phrases: bool = False) -> Worth:
    """What each unit of a text is worth.

    Args:
        text: the source.
        units: what it was cut into.
        scores: self-information of its tokens.
        weights: of what else counts.
        phrases: whether the units are phrases, of which a sentence has many.
    """
    nats, tokens = _sums(units, scores)
    stand_out = [sum(map(salience, unit.words)) for unit in units]
    prunable = [i for i, unit in enumerate(units) if unit.kind == "text"]
    per_nat = 1.0 / _deviation([nats[i] for i in prunable])
    per_salience = weights.salience / _deviation([stand_out[i] for i in prunable])
    values = [
        (nat * per_nat + out * per_salience) / max(1, number) ** weights.length + weights.soft * unit.weight
        for unit, nat, out, number in zip(units, nats, stand_out, tokens, strict=True)
    ]
    if phrases:
        bonus = LEAD * _deviation([values[i] for i in prunable])
        for i in _leading(text, units):
            values[i] += bonus
    return Worth(text, units, _glued(text, units, values, tokens), tokens, REPEATED if phrases else 0.0)


def _glued(text: str, units: Sequence[Unit], values: Sequence[float], tokens: Sequence[int]) -> list[float]:
    """The values, raised where stop words join two phrases: "battle of Hastings" is an answer, its words are none."""
    glued = list(values)
    for i in range(1, len(units) - 1):
        before, unit, after = units[i - 1 : i + 2]
        joins = unit.kind == before.kind == after.kind == "text" and not unit.weight and tokens[i] <= GLUE_TOKENS
        if joins and all(map(stop, unit.words)) and "\n" not in text[unit.start : after.body]:
            glued[i] = max(values[i], GLUE * min(values[i - 1], values[i + 1]))
    return glued


def _leading(text: str, units: Sequence[Unit]) -> Iterator[int]:
    """Phrases of the first sentence of each paragraph of at least `LEAD_SENTENCES`."""
    first: list[int] = []
    ended = 0
    for i, unit in enumerate(units):
        if "\n" in text[unit.start : unit.body]:
            yield from first if ended >= LEAD_SENTENCES else ()
            first, ended = [], 0
        if not ended and unit.kind == "text":
            first.append(i)
        ended += unit.kind == "frame" and unit.body < unit.end and text[unit.body] in _ENDS
    yield from first if ended >= LEAD_SENTENCES else ()


def _spread_out(
    units: Sequence[Unit | None], scores: Sequence[float], first: Sequence[int], repeated: float
) -> list[int]:
    """`first`, then the other text units, best first; what repeats what is before it is put further back.

    A unit's worth is looked up again when its turn comes: it only ever falls, so the best of those is the best of all.
    """
    taken = set(first)
    heap = [
        (-scores[i], i) for i, unit in enumerate(units) if unit is not None and unit.kind == "text" and i not in taken
    ]
    heapq.heapify(heap)
    ranking = list(first)
    seen = _Seen(repeated)
    for i in first:
        seen.take(units[i])
    while heap:
        score, i = heapq.heappop(heap)
        now = scores[i] - abs(scores[i]) * seen.discount(units[i])
        if now < -score:
            heapq.heappush(heap, (-now, i))
            continue
        seen.take(units[i])
        ranking.append(i)
    return ranking


@dataclass(slots=True)
class _Seen:
    """What is kept already.

    Attributes:
        repeated: part of the worth that goes with the share of known words.
        shingles: runs of three words.
        words: those that carry something, when `repeated` asks for them.
    """

    repeated: float
    shingles: set[tuple[str, ...]] = field(default_factory=set)
    words: set[str] = field(default_factory=set)

    def discount(self, unit: Unit | None) -> float:
        """Part of the unit's worth that is lost because it is known, in [0, 1]."""
        if unit is None:
            return 0.0
        shingles = _shingles(unit)
        if shingles and shingles <= self.shingles:
            return 1 - REDUNDANT
        own = _content(unit) if self.repeated else ()
        return self.repeated * sum(word in self.words for word in own) / len(own) if own else 0.0

    def take(self, unit: Unit | None) -> None:
        """Keep it."""
        if unit is not None:
            self.shingles |= _shingles(unit)
            self.words |= set(_content(unit)) if self.repeated else set()


def _content(unit: Unit) -> list[str]:
    return [word.casefold() for word in unit.words if not stop(word)]


def _passages(text: str, units: Sequence[Unit]) -> tuple[list[int], list[str], list[Place]]:
    """By unit, the number of its sentence; the sentences; and by sentence, where it stands."""
    whole = sentences(text)
    cut = [one for one in whole if one.kind != "frame"] or whole
    starts, lines = [one.start for one in cut], [one.start for one in blocks(text)]
    gaps = [match.end() for match in _GAP.finditer(text)]
    owners = [max(0, bisect_right(starts, unit.body) - 1) for unit in units]
    places = [(bisect_right(gaps, one.body), bisect_right(lines, one.body)) for one in cut]
    return owners, [text[one.body : one.end] for one in cut], places


def _shingles(unit: Unit) -> set[tuple[str, ...]]:
    """Runs of three words; in lines and sentences all digits are alike, so that a log's lines can repeat each other."""
    words = [word.casefold() for word in unit.words]
    if len(words) > PHRASE_WORDS:
        words = [_DIGIT.sub("0", word) for word in words]
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def _sums(units: Sequence[Unit], scores: TokenScores) -> tuple[list[float], list[int]]:
    """Self-information of each unit, summed over its tokens, in nats; and their number.

    A token belongs where its last character is.
    """
    sums, number = [0.0] * len(units), [0] * len(units)
    at = 0
    for end, nats in zip(scores.ends, scores.nats, strict=True):
        while at < len(units) - 1 and units[at].end < end:
            at += 1
        if units:
            sums[at] += nats if isfinite(nats) else 0.0
            number[at] += 1
    return sums, number


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation; 1 when there is none."""
    if not values:
        return 1.0
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values)) or 1.0
