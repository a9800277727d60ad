"""Search by words over texts that come and go.

BM25 (Robertson et al. 1994), k1 = 0.9 as in Anserini and b = 0.75 for its 0.4, because statements differ much in
length, divided by what a text of mean length would get that holds every word of the query once: so a score says which
share of the query a text answers, and means the same for every query.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Collection, Iterator
from functools import lru_cache
from math import log

from ctxmem.compressors.words import stop

K1 = 0.9
B = 0.75
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3400-\u9fff\uf900-\ufaff]+")
_ENDINGS = (
    "ations",
    "ation",
    "ingly",
    "edly",
    "ness",
    "ments",
    "ment",
    "ings",
    "ing",
    "ies",
    "ied",
    "ed",
    "ly",
    "es",
    "s",
)
_SHORTEST = 3


class Lexicon:
    """Texts by id, and where their words are. Adding and removing are linear in a text's length."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._tallies: dict[str, Tally[str]] = {}
        self._postings: dict[str, dict[str, int]] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._tallies)

    def put(self, id: str, text: str) -> None:
        """Index a text; one that is known under the id gives way."""
        self.drop(id)
        tally = Tally(stems(text))
        self._tallies[id] = tally
        self._total += tally.total()
        for stem, number in tally.items():
            self._postings.setdefault(stem, {})[id] = number

    def drop(self, id: str) -> None:
        """Forget a text, if it is known."""
        tally = self._tallies.pop(id, None)
        if tally is None:
            return
        self._total -= tally.total()
        for stem in tally:
            found = self._postings[stem]
            del found[id]
            if not found:
                del self._postings[stem]

    def scores(self, query: str, among: Collection[str] | None = None) -> dict[str, float]:
        """What share of the query each text answers, 0 to 1; texts that share no word with it are left out.

        Args:
            query: what is asked.
            among: ids that may be found; None for all.
        """
        mean = max(self._total / max(1, len(self._tallies)), 1.0)
        ideal, found = 0.0, dict[str, float]()
        for stem in dict.fromkeys(stems(query)):
            postings = self._postings.get(stem, {})
            idf = log(1 + (len(self._tallies) - len(postings) + 0.5) / (len(postings) + 0.5))
            ideal += idf
            for id, tf in postings.items():
                if among is None or id in among:
                    norm = K1 * (1 - B + B * self._tallies[id].total() / mean)
                    found[id] = found.get(id, 0.0) + idf * tf * (K1 + 1) / (tf + norm)
        return {id: min(1.0, score / ideal) for id, score in found.items()}


def stems(text: str) -> Iterator[str]:
    """The words that a search goes by: folded, no stop words, endings cut.

    >>> list(stems("She was painting the lakes"))
    ['paint', 'lak']
    """
    for found in _WORD.findall(text):
        word = found.casefold()
        if not stop(word):
            yield _stem(word)


@lru_cache(2**16)
def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > _SHORTEST and word[-1] in "ey" else word
