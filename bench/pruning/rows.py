"""The rows of the table: each takes a text, a question and an allowance, and gives a shorter text.

Rows that ask nobody (`head`, `random word`, ...) are whole here; ours call the library as a user would; peers are in
`bench.pruning.peers`.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import log

from ctxmem.compressors.units import sentences
from ctxmem.ports import Counter

Row = Callable[[str, str, int], str]
"""From text, question and the tokens allowed, the text that is left."""

K1, B = 0.9, 0.4
"""BM25's constants."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text cut into pieces, rendered with only some of them.

    Attributes:
        pieces: in order; put together they are the text.
    """

    pieces: tuple[str, ...]

    def best(self, order: Sequence[int], allowed: int, counter: Counter) -> str:
        """The most of the pieces, taken in an order, that hold the allowance; rendered in the text's own order."""
        low, high, best = 0, len(order), ""
        while low <= high:
            middle = (low + high) // 2
            text = self.only(order[:middle])
            if counter.texts([text])[0] <= allowed:
                best, low = text, middle + 1
            else:
                high = middle - 1
        return best

    def filled(self, order: Sequence[int], allowed: int, counter: Counter) -> str:
        """Pieces taken in an order, those passed over that do not fit into what is left."""
        sizes, left, chosen = counter.texts(list(self.pieces)), allowed, []
        for i in order:
            if sizes[i] <= left:
                chosen.append(i)
                left -= sizes[i]
        while chosen and counter.texts([self.only(chosen)])[0] > allowed:
            chosen.pop()
        return self.only(chosen)

    def only(self, chosen: Sequence[int]) -> str:
        """The chosen pieces."""
        return "".join(self.pieces[i] for i in sorted(chosen)).strip()


def by_words(text: str) -> Pieces:
    """Cut after each run of whitespace."""
    return Pieces(tuple(re.findall(r"\S+\s*", text)))


@lru_cache(maxsize=256)
def by_sentences(text: str) -> Pieces:
    """Cut as the library cuts into sentences."""
    units = sentences(text)
    return Pieces(tuple(text[unit.start : unit.end] for unit in units))


def nothing(text: str, query: str, allowed: int) -> str:
    """Everything stays: the reference."""
    return text


def head(text: str, query: str, allowed: int, *, counter: Counter) -> str:
    """The first words."""
    pieces = by_words(text)
    return pieces.best(range(len(pieces.pieces)), allowed, counter)


def tail(text: str, query: str, allowed: int, *, counter: Counter) -> str:
    """The last words."""
    pieces = by_words(text)
    return pieces.best(range(len(pieces.pieces) - 1, -1, -1), allowed, counter)


def random_word(text: str, query: str, allowed: int, *, counter: Counter) -> str:
    """Words in an order that the text's hash seeds."""
    pieces = by_words(text)
    return pieces.best(_shuffled(text, len(pieces.pieces)), allowed, counter)


def random_sentence(text: str, query: str, allowed: int, *, counter: Counter) -> str:
    """Sentences in such an order."""
    pieces = by_sentences(text)
    return pieces.filled(_shuffled(text, len(pieces.pieces)), allowed, counter)


def _shuffled(text: str, number: int) -> list[int]:
    return random.Random(zlib.crc32(text.encode())).sample(range(number), number)


def bm25(text: str, query: str, allowed: int, *, counter: Counter) -> str:
    """Whole sentences by BM25 against the question."""
    pieces = by_sentences(text)
    return pieces.filled(ranked(bm25_scores(pieces.pieces, query)), allowed, counter)


def ranked(scores: Sequence[float]) -> list[int]:
    """Places by score, the best first, ties by place."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def bm25_scores(texts: Sequence[str], query: str) -> list[float]:
    """BM25 of each text against the query, the texts being the whole collection."""
    tallies = [Tally(re.findall(r"\w+", text.lower())) for text in texts]
    lengths = [sum(tally.values()) for tally in tallies]
    typical = sum(lengths) / max(1, len(lengths)) or 1.0
    scores = [0.0] * len(texts)
    for word in set(re.findall(r"\w+", query.lower())):
        holders = sum(word in tally for tally in tallies)
        rarity = log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
        for i, tally in enumerate(tallies):
            times = tally[word]
            scores[i] += rarity * times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[i] / typical))
    return scores


def baselines(counter: Counter) -> dict[str, Row]:
    """Rows that need no model."""
    return {
        "none": nothing,
        "head": partial(head, counter=counter),
        "tail": partial(tail, counter=counter),
        "random word": partial(random_word, counter=counter),
        "random sentence": partial(random_sentence, counter=counter),
        "BM25 sentences": partial(bm25, counter=counter),
    }
