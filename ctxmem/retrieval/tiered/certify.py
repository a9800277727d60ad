"""Exact search over codes: only the vectors that could be among the best are read, and it is proved that no other is.

A vector's inner product with a query is at most that of its code plus |query| * |vector - code|. Candidates come from
the codes in the order of that bound; vectors are read until the k-th exact score passes the bound of all that is left.
The result is that of a scan of the same clusters' vectors, ids and scores alike.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.tiered.segment import Floats, Segment, faiss

_FIRST = 64  # candidates that the codes are asked for at first
_MORE = 4  # times as many when they do not suffice
_READ = 16  # vectors read at a time
_SLACK = 1e-5
"""Share of |query| * |longest vector| by which sums in float32 may be off."""


@dataclass(slots=True)
class Account:
    """What a search took.

    Attributes:
        rows_read: vectors read from the disk.
        lists: clusters searched.
        exact: whether the result is proved; not when time ran out or a vector was damaged.
        damaged: rows whose vectors are damaged; they stand in the result by their codes.
    """

    rows_read: int = 0
    lists: int = 0
    exact: bool = True
    damaged: list[int] = field(default_factory=list)

    @property
    def degraded(self) -> str:
        """Why the result is not proved; empty when it is."""
        return "rows" if self.damaged else "" if self.exact else "deadline"


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found.

    Attributes:
        matches: best first; equal scores by id.
        exact: whether they are proved to be the best of the clusters searched.
        degraded: what was missing: `rows` when a vector on disk is damaged, `deadline` when time ran out.
        rows_read: vectors read from disk.
        lists: clusters searched.
        fetched: of those, how many a ticket had brought in before.
    """

    matches: list[Match]
    exact: bool = True
    degraded: str = ""
    rows_read: int = 0
    lists: int = 0
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A search of one segment.

    Attributes:
        vector: (dimensions,) the query.
        k: most finds wanted.
        lists: the clusters to search.
        allowed: (rows,) whether each may be found; None for all.
        until: on the monotonic clock, when to stop with what there is; None for no limit.
    """

    vector: Floats
    k: int
    lists: NDArray[np.int64]
    allowed: NDArray[np.bool_] | None = None
    until: float | None = None


def certified(segment: Segment, asked: Asked) -> tuple[list[Match], Account]:
    """The best `k` or fewer vectors of some clusters with their exact scores; equal scores by id."""
    search = _Search(segment, asked)
    return search.run(), search.account


class _Search:
    def __init__(self, segment: Segment, asked: Asked) -> None:
        self._segment, self._asked = segment, asked
        self._norm = float(np.linalg.norm(asked.vector))
        self._slack = _SLACK * self._norm * segment.manifest.longest
        self._best: list[tuple[float, int]] = []  # a heap of the best k scores
        self._found: dict[int, float] = {}
        self._selector = None if asked.allowed is None else faiss.IDSelectorBitmap(_packed(asked.allowed))
        self.account = Account(lists=len(asked.lists))

    def run(self) -> list[Match]:
        if self._asked.k > 0:
            self._read(self._outliers())
            width = max(_FIRST, _MORE * self._asked.k)
            while not self._settled(*self._candidates(width), width):
                width *= _MORE
        ids = self._segment.ids
        matches = [Match(ids[row], score) for row, score in self._found.items()]
        return heapq.nsmallest(self._asked.k, matches, key=lambda match: (-match.score, match.id))

    def _settled(self, scores: Floats, rows: NDArray[np.int64], width: int) -> bool:
        """Read candidates in the order of their bounds; whether nothing that was not read can be among the best."""
        bounds = scores + self._norm * self._segment.residuals[rows] + self._slack
        order = np.argsort(-bounds, kind="stable")
        for start in range(0, len(order), _READ):
            some = order[start : start + _READ]
            if bounds[some[0]] < self._least():
                break
            if self._late():
                return True
            self._read(rows[some])
        if len(rows) < width:
            return True
        beyond = float(scores[-1]) + self._norm * self._segment.cap + self._slack
        return beyond < self._least() or self._late()

    def _candidates(self, width: int) -> tuple[Floats, NDArray[np.int64]]:
        """The best `width` codes: their scores, falling, and rows."""
        parameters = faiss.SearchParametersIVF(nprobe=len(self._asked.lists), sel=self._selector)
        scores, rows = self._segment.codes.search(self._asked.vector[None], width, params=parameters)
        there = rows[0] >= 0
        return scores[0][there], rows[0][there]

    def _outliers(self) -> NDArray[np.int64]:
        """Rows far from their codes, in the clusters that are searched."""
        rows, starts = self._segment.outliers, self._segment.starts
        rows = rows[np.isin(np.searchsorted(starts, rows, side="right") - 1, self._asked.lists)]
        return rows if self._asked.allowed is None else rows[self._asked.allowed[rows]]

    def _read(self, rows: NDArray[np.int64]) -> None:
        """Score vectors exactly; a damaged one by its code, an erased one not at all."""
        new = sorted(set(rows.tolist()) - self._found.keys())
        vectors, damaged = self._segment.rows(new)
        self.account.rows_read += len(new)
        for row in damaged:
            vectors[new.index(row)] = self._segment.decoded(row)
        if damaged:
            self.account.damaged += damaged
            self.account.exact = False
        for row, score in zip(new, (vectors @ self._asked.vector).tolist(), strict=True):
            if row in self._segment.gone:
                continue
            self._found[row] = score
            heapq.heappush(self._best, (score, row))
            if len(self._best) > self._asked.k:
                heapq.heappop(self._best)

    def _least(self) -> float:
        """The score that a vector must reach to matter."""
        return self._best[0][0] if len(self._best) == self._asked.k else -np.inf

    def _late(self) -> bool:
        if self._asked.until is None or time.monotonic() < self._asked.until:
            return False
        self.account.exact = False
        return True


def _packed(truths: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(truths, bitorder="little")
