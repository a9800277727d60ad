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

_SIFTED = 16_384  # codes that a search is shown before those are left out that cannot be among its best
_ALONE = 250_000
"""Multiplications that OpenBLAS does in one thread; on a busy machine waiting for a second takes longer than these."""

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
        for sieve, scores in zip(sieves, _products(queries, vectors), strict=True):
            sieve.take(scores, rows)


def _products(queries: Floats, vectors: Floats) -> Floats:
    """(queries, vectors) inner products, so many at a time that no other threads are woken for them."""
    step = max(1, _ALONE // queries.size)
    products: Floats = np.concatenate(
        [queries @ vectors[at : at + step].T for at in range(0, len(vectors), step)], axis=1
    )
    return products


class _Sieve:
    """Keeps of the codes that a search is shown those that may be among its best."""

    def __init__(self, asked: Asked, search: Search) -> None:
        self.asked, self._search = asked, search
        self._scores: list[Floats] = []
        self._rows: list[NDArray[np.int64]] = []
        self._fresh = 0  # rows since some were left out

    def take(self, scores: Floats, rows: NDArray[np.int64]) -> None:
        if not self.asked.k:
            return
        if self.asked.allowed is not None:
            there = self.asked.allowed[rows]
            scores, rows = scores[there], rows[there]
        self._scores.append(scores)
        self._rows.append(rows)
        self._fresh += len(rows)
        if self._fresh > _SIFTED:
            self._sift()

    def settled(self, unseen: NDArray[np.int64]) -> Found:
        """The best, of all but some clusters."""
        scores, rows = self._sift()
        mine = self.asked.lists[np.isin(self.asked.lists, unseen)]
        return self._search.settle(scores, rows, mine), self._search.account

    def _sift(self) -> tuple[Floats, NDArray[np.int64]]:
        """Leave out what cannot be among the best; returns what stays."""
        scores = np.concatenate([np.empty(0, dtype=np.float32), *self._scores])
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        k, reach = self.asked.k, self._search.reach(rows)
        if k < len(rows):
            least = np.partition(scores - reach, len(rows) - k)[len(rows) - k]
            stay = scores + reach >= least
            scores, rows = scores[stay], rows[stay]
        self._scores, self._rows, self._fresh = [scores], [rows], 0
        return scores, rows
