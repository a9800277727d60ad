"""Exact search over codes: only the vectors that could be among the best are read, and it is proved that no other is.

A vector's inner product with a query is at most that of its code plus |query| * |vector - code|. Candidates come from
the codes in the order of that bound; vectors are read until the k-th exact score passes the bound of all that is left.
The result is that of a scan of the same clusters' vectors, ids and scores alike.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.tiered.segment import Floats, Segment, faiss

_FIRST = 64  # candidates that the codes are asked for at first
_MORE = 4  # times as many when they do not suffice
_READ = 16  # vectors read at a time
_SCANNED = 65_536  # codes scanned between two looks at the clock
_SLACK = 1e-5
"""Share of |query| * |longest vector| by which sums in float32 may be off."""


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

    @property
    def late(self) -> bool:
        """Whether time has run out."""
        return self.until is not None and time.monotonic() >= self.until


@dataclass(slots=True)
class Account:
    """What a search took.

    Attributes:
        rows_read: vectors read.
        lists: clusters searched.
        late: whether time ran out.
        open: rows of which it is not known whether they are among the best.
        of: rows that may be found in the clusters; not counted where the result is proved.
        damaged: rows whose vectors are damaged; they stand in the result by their codes.
    """

    rows_read: int = 0
    lists: int = 0
    late: bool = False
    open: int = 0
    of: int = 0
    damaged: list[int] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether the result is proved."""
        return not self.late and not self.damaged

    @property
    def degraded(self) -> str:
        """Why the result is not proved; empty when it is."""
        return "rows" if self.damaged else "deadline" if self.late else ""

    @property
    def coverage(self) -> float:
        """Share of the rows that is settled."""
        return 1.0 - (self.open + len(self.damaged)) / self.of if self.of else 1.0


class Reads:
    """Vectors of a segment, each read once however many searches look at it."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._known: dict[int, Floats] = {}
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._known)

    def rows(self, places: list[int]) -> tuple[Floats, list[int]]:
        """(len(places), dimensions) vectors, damaged ones by their codes, and the places of those."""
        new = [place for place in places if place not in self._known]
        vectors, damaged = self._segment.rows(new)
        for place in damaged:
            vectors[new.index(place)] = self._segment.decoded(place)
        self._damaged.update(damaged)
        self._known.update(zip(new, vectors, strict=True))
        found = np.array([self._known[place] for place in places], dtype=np.float32)
        return found.reshape(len(places), self._segment.manifest.dimensions), [
            place for place in places if place in self._damaged
        ]


def certified(segment: Segment, asked: Asked) -> tuple[list[Match], Account]:
    """The best `k` or fewer vectors of some clusters with their exact scores; equal scores by id."""
    search = Search(segment, asked, Reads(segment))
    return search.run(), search.account


class Search:
    """One search of a segment.

    Args:
        segment: where.
        asked: what.
        reads: gives vectors.
    """

    def __init__(self, segment: Segment, asked: Asked, reads: Reads) -> None:
        self._segment, self._asked, self._reads = segment, asked, reads
        self._norm = float(np.linalg.norm(asked.vector))
        self._slack = _SLACK * self._norm * segment.manifest.longest
        self._best: list[tuple[float, int]] = []  # a heap of the best k scores
        self._found: dict[int, float] = {}
        self._rough: dict[int, float] = {}  # scores of codes whose vectors there was no time to read
        self._unseen = np.empty(0, dtype=np.int64)  # clusters that there was no time to scan
        self._selector = None if asked.allowed is None else faiss.IDSelectorBitmap(_packed(asked.allowed))
        self.account = Account(lists=len(asked.lists))

    def run(self) -> list[Match]:
        """The best, proved where there is time."""
        if self._asked.k > 0:
            self._read(self._outliers())
            width = max(_FIRST, _MORE * self._asked.k)
            while not self._settled(*self._candidates(width), width):
                width *= _MORE
        return self._matches()

    def settle(self, scores: Floats, rows: NDArray[np.int64], unseen: NDArray[np.int64]) -> list[Match]:
        """The best among candidates: all that may be, but for what is in clusters there was no time to scan."""
        self._unseen = unseen
        self._settled(scores, rows, len(rows) + 1)
        return self._matches()

    def reach(self, rows: slice | NDArray[np.int64]) -> Floats:
        """By how much the scores of rows' codes may be off."""
        off: Floats = self._norm * self._segment.residuals[rows] + np.float32(self._slack)
        return off

    def _settled(self, scores: Floats, rows: NDArray[np.int64], width: int) -> bool:
        """Read candidates in the order of their bounds; whether no more of them are needed, or there is no time."""
        bounds = scores + self.reach(rows)
        order = np.argsort(-bounds, kind="stable")
        left: list[int] = []
        for start in range(0, len(order), _READ):
            some = order[start : start + _READ]
            if bounds[some[0]] < self._least():
                break
            if self._asked.late:
                left = [at for at in order[start:].tolist() if bounds[at] >= self._least()]
                break
            self._read(rows[some])
        more = len(rows) == width and scores[-1] + self._norm * self._segment.cap + self._slack >= self._least()
        if more and not self._asked.late:
            return False
        self._rough = {int(rows[at]): float(scores[at]) for at in left if int(rows[at]) not in self._found}
        there = self._size(self._asked.lists) - self._size(self._unseen)
        self._stop(len(self._rough) + (there - len(rows) if more else 0))
        return True

    def _stop(self, undecided: int) -> None:
        """Put down of how many rows, in the clusters that were scanned, it is not known whether they matter."""
        account = self.account
        account.open = undecided + self._size(self._unseen)
        account.late = account.open > 0
        account.of = 0 if account.exact else self._size(self._asked.lists)

    def _candidates(self, width: int) -> tuple[Floats, NDArray[np.int64]]:
        """The best `width` codes: their scores, falling, and rows."""
        scores, rows = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        for lists in self._pieces():
            some, places = self._segment.search(self._asked.vector, width, lists, self._selector)
            scores, rows = np.concatenate((scores, some)), np.concatenate((rows, places))
            best = np.argsort(-scores, kind="stable")[:width]
            scores, rows = scores[best], rows[best]
        return scores, rows

    def _pieces(self) -> Iterator[NDArray[np.int64]]:
        """The clusters, so many at a time as are scanned between two looks at the clock; the first in any case."""
        lists, starts = self._asked.lists, self._segment.starts
        turns = np.cumsum(starts[lists + 1] - starts[lists]) // _SCANNED
        for turn in np.unique(turns).tolist():
            if turn > turns[0] and self._asked.late:
                self._unseen = lists[turns >= turn]
                return
            yield lists[turns == turn]

    def _size(self, lists: NDArray[np.int64]) -> int:
        """Rows in some clusters that may be found."""
        starts, allowed = self._segment.starts, self._asked.allowed
        if allowed is None:
            return int((starts[lists + 1] - starts[lists]).sum())
        return sum(int(allowed[starts[number] : starts[number + 1]].sum()) for number in lists.tolist())

    def _outliers(self) -> NDArray[np.int64]:
        """Rows far from their codes, in the clusters that are searched."""
        rows = self._segment.outliers
        rows = rows[np.isin(self._segment.cluster_of(rows), self._asked.lists)]
        return rows if self._asked.allowed is None else rows[self._asked.allowed[rows]]

    def _read(self, rows: NDArray[np.int64]) -> None:
        """Score vectors exactly; a damaged one by its code, an erased one not at all."""
        new = sorted(set(rows.tolist()) - self._found.keys())
        vectors, damaged = self._reads.rows(new)
        self.account.rows_read += len(new)
        self.account.damaged += damaged
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

    def _matches(self) -> list[Match]:
        """What is found, best first."""
        ids, scores = self._segment.ids, self._rough | self._found
        matches = [Match(ids[row], score) for row, score in scores.items() if row not in self._segment.gone]
        return heapq.nsmallest(self._asked.k, matches, key=lambda match: (-match.score, match.id))


def _packed(truths: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(truths, bitorder="little")
