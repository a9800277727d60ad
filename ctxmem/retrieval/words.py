"""Search by words: BM25 over stems, by bm25s.

Source: Robertson et al., "Okapi at TREC-3" (1994), in Lucene's form; k1 = 0.9 and b = 0.4 as in Anserini. Words are
folded and stemmed (Snowball); a run of Han, kana or Hangul counts by pairs of neighbours, which needs no dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray

from ctxmem.ports import Match

K1 = 0.9
B = 0.4
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_STOP = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of"}
    | {
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    }
)
"""Lucene's English stop words."""


class WordIndex:
    """BM25 over texts by id. Statistics are brought up to date by the first search after a change.

    Not safe for threads that write: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._stem = Stemmer.Stemmer("english")
        self._vocabulary: dict[str, int] = {}
        self._words: dict[str, list[int]] = {}
        self._built: tuple[bm25s.BM25, list[str], dict[str, int]] | None = None

    def __len__(self) -> int:
        return len(self._words)

    def add(self, texts: Mapping[str, str]) -> None:
        """Put texts in by id; one whose id is there takes the old one's place."""
        known = self._vocabulary
        for id, text in texts.items():
            self._words[id] = [known.setdefault(word, len(known)) for word in self._terms(text)]
        self._built = None if texts else self._built

    def remove(self, ids: Collection[str]) -> int:
        """Take texts out; returns how many were there."""
        gone = [id for id in dict.fromkeys(ids) if self._words.pop(id, None) is not None]
        self._built = None if gone else self._built
        return len(gone)

    def search(self, query: str, k: int, *, among: Collection[str] | None = None) -> list[Match]:
        """The best `k` or fewer texts that share a word with the query, best first; equal scores by id."""
        scores, ids = self.scores(query), self._ids
        wanted = among if among is None or isinstance(among, set | frozenset | dict) else set(among)
        places = [at for at in np.flatnonzero(scores > 0).tolist() if wanted is None or ids[at] in wanted]
        found = [Match(ids[place], float(scores[place])) for place in places]
        return sorted(found, key=lambda match: (-match.score, match.id))[: max(0, k)]

    def of(self, query: str, ids: Sequence[str]) -> list[float]:
        """The scores of some texts; 0 for those that are not there."""
        scores = self.scores(query)
        places = self._built[2] if self._built else {}
        return [float(scores[places[id]]) if id in places else 0.0 for id in ids]

    def scores(self, query: str) -> NDArray[np.float32]:
        """(texts,) scores of all texts, in the order of `add`."""
        terms = [self._vocabulary[word] for word in self._terms(query) if word in self._vocabulary]
        engine = self._ready()
        if engine is None or not terms:
            return np.zeros(len(self._words), dtype=np.float32)
        found: NDArray[np.float32] = engine.get_scores_from_ids(terms)
        return found

    @property
    def _ids(self) -> list[str]:
        return self._built[1] if self._built else list(self._words)

    def _ready(self) -> bm25s.BM25 | None:
        """The engine over what is there now; None when no text has a word."""
        if self._built is None and any(self._words.values()):
            engine = bm25s.BM25(method="lucene", k1=K1, b=B)
            engine.index((list(self._words.values()), dict(self._vocabulary)), show_progress=False)
            ids = list(self._words)
            self._built = engine, ids, {id: place for place, id in enumerate(ids)}
        return self._built[0] if self._built else None

    def _terms(self, text: str) -> list[str]:
        words: list[str] = []
        for found in _WORD.findall(text.casefold()):
            if "\u3040" <= found[0] <= "\ud7af" or "\uf900" <= found[0] <= "\ufaff":
                words += [found[at : at + 2] for at in range(max(1, len(found) - 1))]
            elif found not in _STOP:
                words.append(found)
        stems: list[str] = self._stem.stemWords(words)
        return stems
