"""Exact search over codes: only the vectors that could be among the best are read, and it is proved that no other is.

A vector's inner product with a query is at most that of its code plus |query| * |vector - code|. Candidates are the
codes of the best rough scores, see `codes`; their vectors are read in the order of that bound, until the k-th exact
score passes the bounds of all that is left. The few that lie far from their codes are in memory, and need no bound. The
result is that of a scan of the same clusters' vectors, ids and scores alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.flat import best
from ctxmem.retrieval.tiered.codes import Floats, faiss
from ctxmem.retrieval.tiered.segment import Segment

_FIRST = 128  # candidates that the codes are asked for at first
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
        floor: score that a vector must reach to matter, where better ones are known from elsewhere.
    """

    vector: Floats
    k: int
    lists: NDArray[np.int64]
    allowed: NDArray[np.bool_] | None = None
    until: float | None = None
    floor: float = -np.inf

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
            vectors[new.index(place)] = self._segment.codes.decoded(place)
        self._damaged.update(damaged)
        self._known.update(zip(new, vectors, strict=True))
        if len(new) == len(places):
            return vectors, damaged
        found = np.array([self._known[place] for place in places], dtype=np.float32)
        return found, [place for place in places if place in self._damaged]


Found = tuple[list[Match], Account]
"""The best `k` or fewer vectors of some clusters with their exact scores, equal ones by id; and what that took."""


def searched(segment: Segment, asked: Sequence[Asked]) -> tuple[list[Found], int]:
    """What each search finds, and how many vectors were read for all of them."""
    reads, erased = Reads(segment), len(segment.gone)
    found = [Search(segment, one, reads).run() for one in asked]
    if len(segment.gone) > erased:  # what was erased meanwhile may have kept others out
        found = [Search(segment, one, reads).run() for one in asked]
    return found, len(reads)


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
        self._query = segment.codes.rounded(asked.vector)
        self._found: dict[int, float] = {}
        self._least = asked.floor  # score that a vector must reach to matter
        self._rough: dict[int, float] = {}  # scores of codes whose vectors there was no time to read
        self._unseen = np.empty(0, dtype=np.int64)  # clusters that there was no time to scan
        self._selector = None if asked.allowed is None else faiss.IDSelectorBitmap(_packed(asked.allowed))
        self.account = Account(lists=len(asked.lists))
        self._take_outliers()

    def run(self) -> Found:
        """The best, proved where there is time."""
        width = max(_FIRST, _MORE * self._asked.k)
        while self._asked.k and len(self._asked.lists) and not self._tried(width):
            width *= _MORE
        return self._matches(), self.account

    def _tried(self, width: int) -> bool:
        """Look at so many candidates; whether no more of them are needed, or there is no time."""
        rough, rows = self._candidates(width)
        some = self._sifted(rough, rows)
        self._decide(self._segment.codes.scores(self._query, some), some)
        off = self._query.off + self._norm * self._segment.cap + self._slack
        more = len(rows) == width and rough[-1] + off >= self._least
        if more and not self._asked.late:
            return False
        there = self._size(self._asked.lists) - self._size(self._unseen) if more else len(rows)
        self._stop(len(self._rough) + there - len(rows))
        return True

    def _sifted(self, rough: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that may be among the best for all that their rough scores say."""
        gone = self._segment.gone
        if gone:  # they keep no other out
            there = [row not in gone for row in rows.tolist()]
            rough, rows = rough[there], rows[there]
        doubt = self._reach(rows) + np.float32(self._query.off)
        kept: NDArray[np.int64] = rows[rough + doubt >= max(self._least, _kth(rough - doubt, self._asked.k))]
        return kept

    def _reach(self, rows: NDArray[np.int64]) -> Floats:
        """By how much the scores of rows' codes may be off."""
        off: Floats = self._norm * self._segment.residuals[rows] + np.float32(self._slack)
        return off

    def _decide(self, scores: Floats, rows: NDArray[np.int64]) -> None:
        """Read candidates in the order of their bounds, until none that is left can matter or there is no time."""
        bounds = scores + self._reach(rows)
        order = np.argsort(-bounds, kind="stable")
        self._rough = {}
        for start in range(0, len(order), _READ):
            some = order[start : start + _READ]
            some = some[bounds[some] >= self._least]
            if not len(some):
                return
            if self._asked.late:
                left = [at for at in order[start:].tolist() if bounds[at] >= self._least]
                self._rough = {int(rows[at]): float(scores[at]) for at in left if int(rows[at]) not in self._found}
                return
            self._read(rows[some])

    def _stop(self, undecided: int) -> None:
        """Put down of how many rows, in the clusters that were scanned, it is not known whether they matter."""
        account = self.account
        account.open = undecided + self._size(self._unseen)
        account.late = account.open > 0
        account.of = 0 if account.exact else self._size(self._asked.lists)

    def _candidates(self, width: int) -> tuple[Floats, NDArray[np.int64]]:
        """The codes of the best `width` rough scores: these, falling, and rows."""
        search, query = self._segment.codes.search, self._query
        found = [search(query, width, lists, self._selector) for lists in self._pieces()]
        if len(found) == 1:
            return found[0]
        scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(-scores, kind="stable")[:width]
        return scores[order], rows[order]

    def _pieces(self) -> Iterator[NDArray[np.int64]]:
        """The clusters, so many at a time as are scanned between two looks at the clock; the first in any case."""
        lists, starts = self._asked.lists, self._segment.starts
        if self._asked.until is None:
            yield lists
            return
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

    def _take_outliers(self) -> None:
        """Score those in the clusters that are searched; their vectors are in memory."""
        segment, allowed = self._segment, self._asked.allowed
        at = segment.outlying(self._asked.lists)
        if allowed is not None:
            at = at[allowed[segment.outliers[at]]]
        rows = segment.outliers[at].tolist()
        self.account.damaged += [row for row in rows if row in segment.damaged]
        self._take(rows, segment.far[at] @ self._asked.vector)

    def _read(self, rows: NDArray[np.int64]) -> None:
        """Score vectors exactly; a damaged one by its code."""
        new = sorted(set(rows.tolist()) - self._found.keys())
        vectors, damaged = self._reads.rows(new)
        self.account.rows_read += len(new)
        self.account.damaged += damaged
        self._take(new, vectors @ self._asked.vector)

    def _take(self, rows: list[int], scores: Floats) -> None:
        """Count vectors as found; erased ones not at all."""
        gone = self._segment.gone
        self._found.update(pair for pair in zip(rows, scores.tolist(), strict=True) if pair[0] not in gone)
        least = _kth(np.fromiter(self._found.values(), np.float64, len(self._found)), self._asked.k)
        self._least = max(least, self._asked.floor)

    def _matches(self) -> list[Match]:
        """What is found, best first."""
        ids, gone = self._segment.ids, self._segment.gone
        scores = {row: score for row, score in (self._rough | self._found).items() if row not in gone}
        least = _kth(np.fromiter(scores.values(), np.float64, len(scores)), self._asked.k)
        return best([Match(ids[row], score) for row, score in scores.items() if score >= least], self._asked.k)


def _kth(scores: NDArray[np.floating[Any]], k: int) -> float:
    """The k-th of them from above; lower than all when there are fewer."""
    return float(np.partition(scores, -k)[-k]) if 0 < k <= len(scores) else -np.inf


def _packed(truths: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(truths, bitorder="little")
