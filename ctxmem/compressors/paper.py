"""The published Selective Context as its authors' code runs it, for comparison and for those who come from it.

Source: Li et al. 2023, arXiv 2310.06201, and the package `selective-context` 0.1.3, `SelectiveContext.__call__`: each
sentence is scored alone, a unit's self-information is the *mean* over its tokens, and units below a percentile of all
of them go. `ctxmem.compressors.prune` says what ours does instead, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, isnan, nan
from statistics import fmean
from typing import Literal, get_args

from ctxmem.compressors.units import phrases
from ctxmem.errors import InvalidInput
from ctxmem.ports import Scorer, TokenScores

Level = Literal["sent", "phrase", "token"]

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")
_SPACE = re.compile(r"\s+")

Unit = tuple[str, float]
"""Its text, and its self-information in nats a token."""


def chunks(sentence: str) -> list[str]:
    """Our phrases of a sentence, one after the other the sentence again."""
    return [sentence[unit.start : unit.end] for unit in phrases(sentence)]


@dataclass(frozen=True, slots=True)
class Published:
    """Callable like the package's `SelectiveContext`.

    Attributes:
        scorer: gives self-information; the package's is GPT-2 in fp32.
        chunk: cuts a sentence into phrases that make it up; the package's are spaCy's tokens, noun chunks merged.
    """

    scorer: Scorer
    chunk: Callable[[str], Sequence[str]] = chunks

    def __call__(self, text: str, reduce_ratio: float = 0.35, reduce_level: Level = "phrase") -> tuple[str, list[str]]:
        """The text without the units that tell least, and those units.

        Args:
            text: what to shorten; all its whitespace becomes single spaces.
            reduce_ratio: share of the *units* to leave out, in [0, 1]; not of the tokens.
            reduce_level: what the units are.

        Raises:
            InvalidInput: not a text, a ratio out of range or an unknown level.
            Unavailable: the scorer is out of reach.
        """
        if not isinstance(text, str):
            raise InvalidInput(f"text must be a string, got {type(text).__name__}", param="text")
        if isinstance(reduce_ratio, bool) or not 0 <= reduce_ratio <= 1:
            raise InvalidInput(f"reduce_ratio must be in [0, 1], got {reduce_ratio!r}", param="reduce_ratio")
        if reduce_level not in get_args(Level):
            raise InvalidInput(f"reduce_level must be one of {', '.join(get_args(Level))}", param="reduce_level")
        units = self._units(text, reduce_level)
        least = percentile([nats for _, nats in units], reduce_ratio)
        kept = ["" if nats < least else unit for unit, nats in units]
        return (" " if reduce_level == "sent" else "").join(kept), [unit for unit, nats in units if nats < least]

    def _units(self, text: str, level: Level) -> list[Unit]:
        cut = (sentence.strip() for sentence in _SENTENCE_END.split(_SPACE.sub(" ", text)))
        sentences = [sentence for sentence in cut if sentence]
        units: list[Unit] = []
        for sentence, scores in zip(sentences, self.scorer.score(sentences), strict=True):
            if level == "sent":
                units.append((sentence, _mean(scores.nats)))
                continue
            tokens = [sentence[start:end] for start, end in zip(scores.starts, scores.ends, strict=True)]
            if level == "token":
                units += zip(tokens, scores.nats, strict=True)
                continue
            found = self.chunk(sentence)
            texts = [f" {found[0]}", *found[1:]] if units else found
            units += zip(texts, spread(tokens, scores, found), strict=True)
        return units


def spread(tokens: Sequence[str], scores: TokenScores, units: Sequence[str]) -> list[float]:
    """Mean self-information of each unit, by the package's walk along the lengths of the tokens.

    A space alone counts for nothing unless it ends a unit; a token that fills k units gives each a k-th.

    Returns:
        By unit, nats a token; NaN for one that no token fell to.
    """
    shares: list[list[float]] = [[] for _ in units]
    at = position = 0
    for token, nats in zip(tokens, scores.nats, strict=True):
        if at == len(units):
            break
        position += len(token)
        if position < len(units[at]):
            if token != " ":
                shares[at].append(nats)
            continue
        first, exact = at, position == len(units[at])
        while at < len(units) and position >= len(units[at]):
            position -= len(units[at])
            at += 1
            if exact:
                break
        for unit in range(first, at):  # those it filled; where it ends short of the next unit's end it adds nothing
            shares[unit].append(nats / (at - first))
    return [_mean(share) for share in shares]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values is below, between two of them by a straight line, NaN aside.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 0.5)
    2.5
    """
    known = sorted(value for value in values if not isnan(value))
    if not known:
        return nan
    place = share * (len(known) - 1)
    low = floor(place)
    high, part = min(low + 1, len(known) - 1), place - low
    gap = known[high] - known[low]
    return known[low] + gap * part if part < 0.5 else known[high] - gap * (1 - part)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else nan
