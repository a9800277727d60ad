"""Several searches at once: each cluster that any of them looks into is scanned once, and each vector read once.

A cluster's codes are decoded and multiplied with all the queries that look into it. Of each query's codes only those
stay whose upper bound reaches the k-th best lower bound so far, since no other can be among the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.tiered.certify import Account, Asked, Reads, Search, certified
from ctxmem.retrieval.tiered.segment import Floats, Segment

Found = tuple[list[Match], Account]
"""What a search found, and what it took."""


def searched(segment: Segment, asked: Sequence[Asked]) -> tuple[list[Found], int, int]:
    """The finds of each search, how many clusters were scanned, and how many vectors read."""
    if len(asked) == 1:  # faiss scans the codes of one query faster
        found = certified(segment, asked[0])
        return [found], len(asked[0].lists), found[1].rows_read
    return _together(segment, asked)


def _together(segment: Segment, asked: Sequence[Asked]) -> tuple[list[Found], int, int]:
    reads, erased = Reads(segment), len(segment.gone)
    sieves = [_Sieve(one, Search(segment, one, reads)) for one in asked]
    order = np.unique(np.concatenate([one.lists for one in asked])) if asked else np.empty(0, dtype=np.int64)
    wanted: dict[int, list[_Sieve]] = {}
    for sieve in sieves:
        for number in sieve.asked.lists.tolist():
            wanted.setdefault(number, []).append(sieve)
    scanned = 0
    for number in order.tolist():
        if scanned and asked[0].late:
            break
        _scan(segment, number, wanted[number])
        scanned += 1
    found = [sieve.settled(order[scanned:]) for sieve in sieves]
    if len(segment.gone) > erased:  # a code that was erased meanwhile may have kept others out
        found = [certified(segment, one) for one in asked]
    return found, scanned, len(reads)


def _scan(segment: Segment, number: int, sieves: Sequence[_Sieve]) -> None:
    queries = np.array([sieve.asked.vector for sieve in sieves])
    for rows, vectors in segment.decodes(number):
        for sieve, scores in zip(sieves, queries @ vectors.T, strict=True):
            sieve.take(scores, rows)


class _Sieve:
    """Keeps of the codes that a search is shown those that may be among its best."""

    def __init__(self, asked: Asked, search: Search) -> None:
        self.asked, self._search = asked, search
        self._scores, self._rows = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        self._lowers = np.empty(0, dtype=np.float32)  # the best k

    def take(self, scores: Floats, rows: NDArray[np.int64]) -> None:
        if self.asked.allowed is not None:
            there = self.asked.allowed[rows]
            scores, rows = scores[there], rows[there]
        lowers = np.concatenate((self._lowers, scores - self._search.reach(rows)))
        self._lowers = np.sort(lowers)[::-1][: self.asked.k]
        self._scores, self._rows = np.concatenate((self._scores, scores)), np.concatenate((self._rows, rows))
        if len(self._lowers) == self.asked.k:
            stay = self._scores + self._search.reach(self._rows) >= self._lowers.min(initial=np.inf)
            self._scores, self._rows = self._scores[stay], self._rows[stay]

    def settled(self, unseen: NDArray[np.int64]) -> Found:
        """The best, of all but some clusters."""
        mine = self.asked.lists[np.isin(self.asked.lists, unseen)]
        return self._search.settle(self._scores, self._rows, mine), self._search.account
