"""What of a text is still there after compression, and how sure a mean is."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.pruning.cases import Case, Question, plain
from ctxmem.compressors.words import stop

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NEGATORS = frozenset(["not", "never", "no", "none", "neither", "nor", "cannot", "without", "except", "unless"])
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions, with its 95 % interval by bootstrap over the texts.

    Attributes:
        value: the mean.
        low: 2.5 % quantile.
        high: 97.5 % quantile.
        n: questions.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.0f},{100 * self.high:.0f}]"


Sample = tuple[int, float]
"""Number of the text, value."""


def mean(samples: Sequence[Sample]) -> Mean | None:
    """Mean with its interval; questions about one text stay together in a resample."""
    if not samples:
        return None
    groups: dict[int, list[float]] = defaultdict(list)
    for text, value in samples:
        groups[text].append(value)
    sums = [(sum(values), len(values)) for values in groups.values()]
    draw = random.Random(1)
    means = sorted(_ratio(draw.choices(sums, k=len(sums))) for _ in range(_RESAMPLES))
    value = fmean(value for _, value in samples)
    return Mean(value, means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)], len(samples))


def _ratio(sums: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in sums) / sum(number for _, number in sums)


@dataclass(frozen=True, slots=True)
class Words:
    """A text's words with their places, and which of them an output still has.

    Attributes:
        words: lower case.
        starts: character offsets.
    """

    words: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Words:
        """The words of a text."""
        found = [(match[0].lower(), match.start()) for match in _WORD.finditer(text)]
        return cls(tuple(word for word, _ in found), tuple(start for _, start in found))

    def kept(self, output: str) -> list[bool]:
        """By word, whether the output has it: the longest common subsequence of words.

        A word that a row made up, cut in two or moved costs itself and nothing behind it. Of several longest ones it is
        the same one each time. Bit-parallel (Hyyrö 2004): bit i of a row is 0 where the length grows at word i.
        """
        places: dict[str, int] = defaultdict(int)
        for i, word in enumerate(self.words):
            places[word] |= 1 << i
        every = (1 << len(self.words)) - 1
        row, rows = every, []
        for word in _WORD.findall(output.lower()):
            match = row & places.get(word, 0)
            row = ((row + match) | (row - match)) & every
            rows.append(row)
        return _traced(rows, len(self.words))


def _traced(rows: Sequence[int], columns: int) -> list[bool]:
    """The words on the path from the end of both texts to the start of one."""
    stays, line, column = [False] * columns, len(rows), columns
    while line and column:
        if rows[line - 1] >> (column - 1) & 1:
            column -= 1
            continue
        line -= 1
        if not line or rows[line - 1] >> (column - 1) & 1:
            column -= 1
            stays[column] = True
    return stays


Measure = Callable[[Case, Question, str], float | None]
"""A share in [0, 1] of what an output still has; None where the question says nothing about it."""

TextMeasure = Callable[[Case, str], float | None]
"""The same of the whole text, whatever is asked."""


def survives(case: Case, question: Question, output: str) -> float | None:
    """Whether the gold answer stands in the output word for word."""
    return float(plain(question.answer) in plain(output)) if question.verbatim else None


def answer_words(case: Case, question: Question, output: str) -> float | None:
    """Share of the answer's content words that the text has and the output still has."""
    source, left = plain(case.text), plain(output)
    wanted = {word for word in plain(question.answer).split() if not stop(word) and f" {word} " in source}
    return fmean(f" {word} " in left for word in wanted) if wanted else None


def gold_span(case: Case, question: Question, output: str) -> float | None:
    """Share of the gold passage's content words that are still there."""
    source = Words.of(case.text)
    kept = source.kept(output)
    inside = [
        stays
        for word, start, stays in zip(source.words, source.starts, kept, strict=True)
        if not stop(word) and any(first <= start < last for first, last in question.evidence)
    ]
    return fmean(inside) if inside else None


def numbers(case: Case, output: str) -> float | None:
    """Share of the text's distinct numbers that the output has."""
    wanted = set(_NUMBER.findall(case.text))
    return len(wanted & set(_NUMBER.findall(output))) / len(wanted) if wanted else None


def negations(case: Case, output: str) -> float | None:
    """Share of the text's negations that the output has, each together with the word after it."""
    source = Words.of(case.text)
    kept = source.kept(output)
    negators = [
        i
        for i, (word, start) in enumerate(zip(source.words, source.starts, strict=True))
        if word in _NEGATORS or (word == "t" and case.text[start - 2 : start].lower() in ("n'", "n’"))
    ]
    here = [kept[i] and kept[i + 1] for i in negators if i + 1 < len(kept)]
    return fmean(here) if here else None


MEASURES: dict[str, Measure] = {"answer": survives, "answer words": answer_words, "gold span": gold_span}
"""By column, what is taken of each question."""

TEXT_MEASURES: dict[str, TextMeasure] = {"numbers": numbers, "negations": negations}
"""By column, what is taken of each output."""

COLUMNS = (*MEASURES, *TEXT_MEASURES)
