"""An index for more vectors than memory should hold: a segment on disk, what is new in memory, exact results.

    index = TieredIndex(folder, embedder.name, embedder.dimensions)
    index.add(ids, vectors)
    index.compact()                      # what is in memory goes to disk
    index.find(vector, k=10)             # matches, and whether they are proved

It implements `ctxmem.ports.Index` and may be lost at any time; the truth is in SQL. A segment that is damaged is told
and left out when the index is opened, and what it held is taken in anew when it is added.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput
from ctxmem.ports import HotTier, Match
from ctxmem.ports.index import checked, paired, wanted
from ctxmem.retrieval.flat import best
from ctxmem.retrieval.tiered import KEPT
from ctxmem.retrieval.tiered.build import Progress
from ctxmem.retrieval.tiered.certify import Account, Asked
from ctxmem.retrieval.tiered.folder import Folder
from ctxmem.retrieval.tiered.held import Held
from ctxmem.retrieval.tiered.hits import MODES, Batch, Hits, Mode
from ctxmem.retrieval.tiered.hot import searched_with
from ctxmem.retrieval.tiered.lookahead import Loader, Ticket
from ctxmem.retrieval.tiered.probes import Probe, probed
from ctxmem.retrieval.tiered.segment import Segment
from ctxmem.retrieval.tiered.upkeep import Upkeep

PROBED = 32
"""Clusters that a search looks into."""
_SHARE = 8  # of those on disk, an eighth more must be new
_TICKETS = 16  # lookaheads that wait for a search


class TieredIndex:
    """Vectors by id, most of them on disk. Safe for threads: each search sees one moment of the index.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
        probed: clusters that a search looks into; as many as there are makes every search exact over all vectors.
        hot: where clusters that lookahead brings in are held and scored; None, as at first, for the page cache.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        dimensions: int,
        *,
        probed: int = PROBED,
        trusted: bool = True,
        kept: int = KEPT,
    ) -> None:
        """Open the index in a folder, which one process at a time may have open.

        Args:
            folder: where its segment is; made with the first one.
            fingerprint: name of the embedder.
            dimensions: length of a vector.
            probed: see `TieredIndex`.
            trusted: whether what the segment holds is there at once. If not, it is there once it is added again, which
                costs no more than a checksum: for owners who keep the truth elsewhere.
            kept: vectors that stay in memory before `tend` writes them to the disk.

        Raises:
            InvalidInput: no dimensions, or no cluster may be searched.
        """
        if probed < 1 or dimensions < 1:
            said = f"dimensions and clusters to look into are one at least, got {dimensions} and {probed}"
            raise InvalidInput(said, param="probed")
        self.fingerprint, self.dimensions, self.probed = fingerprint, dimensions, probed
        self.hot: HotTier | None = None
        self._kept = kept
        place = Folder(folder, fingerprint, dimensions)
        self._held = Held(place.current(), fingerprint, dimensions, trusted=trusted)
        self._upkeep = Upkeep(place, self._held, fingerprint)
        self._loader = Loader()
        self._waiting: deque[Ticket] = deque(maxlen=_TICKETS)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def segment(self) -> Segment | None:
        """What is on disk now."""
        return self._held.now.segment if self._held.now else None

    @property
    def approximate(self) -> bool:
        """Whether a search looks into less than all clusters."""
        return self.segment is not None and self.segment.manifest.lists > self.probed

    @property
    def damaged(self) -> list[str]:
        """Ids whose vectors were found damaged; `add` makes them whole."""
        return self._held.damaged

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        self._held.add(ids, paired(ids, vectors, self.dimensions))

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there. On the disk they stay until `erase` or `compact`."""
        return self._held.remove(ids)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        The newest lookahead that no search has used yet is taken for this one's.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        waiting = self._waiting
        ticket = waiting.pop() if waiting else None
        found = self.find_many(vectors, k, among=among, ticket=ticket)
        return [hits.matches for hits in found.hits]

    def find(
        self,
        vector: NDArray[np.float32],
        k: int,
        *,
        mode: Mode = "certified",
        among: Collection[str] | None = None,
        deadline: float | None = None,
        ticket: Ticket | None = None,
    ) -> Hits:
        """The best `k` or fewer vectors for one query, and how that is known.

        Args:
            vector: (dimensions,) the query.
            k: most finds wanted.
            mode: `certified` searches the `probed` nearest clusters; `scan` all of them, the codes first, so that the
                finds are the best of all; `superset`, as TeleRAG, what the ticket brought in and those of the nearest
                clusters that it did not: no find is worse, but which ones they are depends on what was there in time.
            among: ids that may be found; None for all. All clusters that hold one of them are searched.
            deadline: seconds from now, past which what has been found is given.
            ticket: of a lookahead for this search; it is told what was of use, and ended.

        Raises:
            InvalidInput: another dimension, a value that is not finite, a negative `k`, or no such mode.
            StoreError: the disk cannot be read.
        """
        rows = np.asarray(vector)[None]
        [hits] = self.find_many(rows, k, mode=mode, among=among, deadline=deadline, ticket=ticket).hits
        return hits

    def find_many(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        mode: Mode = "certified",
        among: Collection[str] | None = None,
        deadline: float | None = None,
        ticket: Ticket | None = None,
    ) -> Batch:
        """The same for each of (queries, dimensions) vectors; every vector is read once for all of them."""
        queries = checked(vectors, self.dimensions)
        k = wanted(k)
        if mode not in MODES or (deadline is not None and isnan(deadline)):
            raise InvalidInput(f"mode is one of {', '.join(MODES)}, deadline seconds; got {mode!r}, {deadline}")
        until = None if deadline is None else time.monotonic() + deadline
        new, now = self._held.search(queries, k, among)
        if now is None:
            return Batch([Hits(matches) for matches in new])
        allowed, only = now.allowed(among), among is not None
        probes = probed(now.segment, queries, self.probed, mode=mode, only=allowed if only else None, ticket=ticket)
        asked = [Asked(query, k, one.lists, allowed, until) for query, one in zip(queries, probes, strict=True)]
        found, read = searched_with(self.hot, now.segment, queries, asked)
        hits = [
            _hits(best([*matches, *more], k), account, probe)
            for (matches, account), more, probe in zip(found, new, probes, strict=True)
        ]
        return Batch(hits, len({number for one in probes for number in one.lists.tolist()}), read)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        return self._held.vectors(ids)

    def lookahead(
        self, vector: NDArray[np.float32], *, expect: float, lists: int | None = None, growing: bool = False
    ) -> Ticket:
        """Bring in what a search near this vector will read, while something else goes on.

        Args:
            vector: (dimensions,) of the text known so far, such as the question that a model is rewriting.
            expect: seconds until the search; with the disk's speed it says how much may be fetched.
            lists: clusters to bring in for it; twice as many as a search looks into by default.
            growing: whether the ticket will be fed with more of the text; it begins with half as many as a search then.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or fewer than no clusters.
        """
        if lists is not None and lists < 0:
            raise InvalidInput(f"lists must not be negative, got {lists}", param="lists")
        [row] = checked(np.asarray(vector)[None], self.dimensions)
        usual = -(-self.probed // 2) if growing else 2 * self.probed
        first = usual if lists is None else lists
        self._loader.hot = self.hot
        ticket = self._loader.ticket(self.segment, row, expect=expect, first=first, lists=self.probed)
        if not ticket.ended:
            self._waiting.append(ticket)
        return ticket

    def compact(self, *, lists: int | None = None, progress: Progress | None = None) -> None:
        """Write a segment of all there is and search in that from then on; other threads go on meanwhile.

        Args:
            lists: clusters; about four times the root of the number of vectors by default.
            progress: told how far each stage is.

        Raises:
            StoreError: the disk is full, cannot be written, or holds a damaged vector; the index is as before.
        """
        self._upkeep.compact(lists, progress)

    def tend(self) -> None:
        """Begin to compact when more than `kept` vectors are in memory, and an eighth of what is on disk.

        It goes on behind the searches, in a thread that `close` waits for; where it fails the vectors stay in memory.
        """
        if self._held.new > max(self._kept, len(self) // _SHARE):
            self._upkeep.compact_behind()

    def erase(self, ids: Collection[str] | None = None) -> int:
        """Take vectors out, and off the disk before this returns: their values, codes, ids, and all made of them alone.

        Args:
            ids: whose; None for all that were removed or replaced since the segment was written.

        Returns:
            How many vectors left the disk.

        Raises:
            StoreError: the disk is full or cannot be written. They are not found any more; erase again, or open the
                index again.
        """
        segment = self.segment
        try:
            return self._upkeep.erase(ids)
        finally:
            if self.hot is not None and segment is not None:
                self.hot.drop(segment)

    def close(self) -> None:
        """End lookaheads, and give up a compaction that goes on behind; its folder may be opened by another then."""
        self._loader.close()
        self._upkeep.close()


def _hits(matches: list[Match], account: Account, probe: Probe) -> Hits:
    return Hits(
        matches,
        exact=account.exact,
        whole=probe.whole,
        coverage=account.coverage,
        degraded=account.degraded,
        rows_read=account.rows_read,
        lists=account.lists,
        fetched=probe.fetched,
    )
