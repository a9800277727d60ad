"""Search over the raw log, without a model: what consolidation left out is found again by its words.

BM25 (Robertson et al. 1994) with k1 = 0.9 and b = 0.4, the setting of Anserini; words are folded and lose a plural s. A
better search (embeddings, a reranker) takes its place through the same call.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from math import log

from ctxmem.compressors.mem1.state import neutral
from ctxmem.compressors.units import sentences
from ctxmem.compressors.words import stop
from ctxmem.ports import Counter

K1 = 0.9
B = 0.4
MOST_READ = 20_000
"""Characters of one hit that are read for an excerpt."""

MOST_LINES = 16
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True, slots=True)
class Hit:
    """One event that a search found.

    Attributes:
        id: the event, or the item's handle.
        text: what it says.
        score: higher is better; comparable within one search only.
    """

    id: str
    text: str
    score: float = 0.0


Search = Callable[[str, int], Sequence[Hit]]
"""Takes a query and how many hits are wanted, best first."""


@dataclass(slots=True)
class Index:
    """Texts by id, and where their words are. Adding one is linear in its length; searching in the postings."""

    texts: dict[str, str] = field(default_factory=dict)
    _lengths: dict[str, int] = field(default_factory=dict)
    _postings: dict[str, dict[str, int]] = field(default_factory=dict)
    _total: int = 0

    def add(self, id: str, text: str) -> None:
        """Index one text; an id that is known stays as it is."""
        if id in self.texts:
            return
        tally = Tally(terms(text))
        self.texts[id] = text
        self._lengths[id] = sum(tally.values())
        self._total += self._lengths[id]
        for term, number in tally.items():
            self._postings.setdefault(term, {})[id] = number

    def __call__(self, query: str, k: int) -> list[Hit]:
        """The `k` best texts for a query; those that share no word with it are never among them."""
        scores: dict[str, float] = {}
        number, mean = len(self.texts), self._total / max(1, len(self.texts))
        for term in dict.fromkeys(terms(query)):
            found = self._postings.get(term, {})
            idf = log(1 + (number - len(found) + 0.5) / (len(found) + 0.5))
            for id, tf in found.items():
                norm = K1 * (1 - B + B * self._lengths[id] / max(mean, 1.0))
                scores[id] = scores.get(id, 0.0) + idf * tf * (K1 + 1) / (tf + norm)
        best = nlargest(k, scores.items(), key=lambda pair: pair[1])
        return [Hit(id, self.texts[id], score) for id, score in best]


def excerpt(hits: Iterable[Hit], query: str, known: str, room: int, count: Counter) -> str:
    """Of what a search found, the sentences nearest to the query that are not known yet, each under its handle.

    Args:
        hits: what was found.
        query: what was looked for.
        known: text whose sentences need not be said again.
        room: tokens the excerpt may take.
        count: the target model's counter.
    """
    wanted = set(terms(query))
    pieces: list[tuple[float, str]] = []
    for hit in dict.fromkeys(hits):
        text = neutral(hit.text[:MOST_READ])
        for unit in sentences(text):
            said = " ".join(text[unit.body : unit.end].split())
            shared = len(wanted & set(terms(said)))
            if shared and said not in known:
                pieces.append((shared * (1 + hit.score), f"[{hit.id}] {said}"))
    lines: list[str] = []
    for _, line in sorted(dict.fromkeys(pieces), key=lambda piece: -piece[0])[:MOST_LINES]:
        if count.texts(["\n".join(["Recalled:", *lines, line])])[0] <= room:
            lines.append(line)
    return "\n".join(["Recalled:", *lines]) if lines else ""


def terms(text: str) -> Iterable[str]:
    """The words that a search goes by."""
    for found in _WORD.findall(text):
        word = found.casefold()
        if not stop(word):
            yield word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
