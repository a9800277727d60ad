"""An index for more vectors than memory should hold: a segment on disk, what is new in memory, exact results.

    index = TieredIndex(folder, embedder.name, embedder.dimensions)
    index.add(ids, vectors)
    index.compact()                      # what is in memory goes to disk
    index.find(vector, k=10)             # matches, and whether they are proved

It implements `ctxmem.ports.Index` and may be lost at any time; the truth is in SQL. A segment that is damaged is told
and left out when the index is opened, and what it held is taken in anew when it is added.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput, StoreError
from ctxmem.ports import Match
from ctxmem.ports.index import checked, paired
from ctxmem.retrieval.flat import FlatIndex, best
from ctxmem.retrieval.tiered.build import Progress, build
from ctxmem.retrieval.tiered.certify import Asked, Hits, certified
from ctxmem.retrieval.tiered.lookahead import Loader, Ticket
from ctxmem.retrieval.tiered.segment import Floats, Joined, Segment, Vectors, encoded, opened

PROBED = 32
"""Clusters that a search looks into."""
_CURRENT = "current"
_TICKETS = 16  # lookaheads that wait for a search

_log = logging.getLogger("ctxmem.retrieval")


@dataclass(frozen=True, slots=True)
class _State:
    """One moment of an index; what changes is replaced, never written to.

    Attributes:
        segment: what is on disk.
        alive: (rows,) which of the segment's rows are still there.
    """

    segment: Segment
    alive: NDArray[np.bool_]


class TieredIndex:
    """Vectors by id, most of them on disk. Safe for threads: each search sees one moment of the index.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
        probed: clusters that a search looks into; as many as there are makes every search exact over all vectors.
    """

    def __init__(
        self, folder: Path, fingerprint: str, dimensions: int, *, probed: int = PROBED, trusted: bool = True
    ) -> None:
        """Open the index in a folder, which one process at a time writes to.

        Args:
            folder: where its segment is; made when it is not there.
            fingerprint: name of the embedder.
            dimensions: length of a vector.
            probed: see `TieredIndex`.
            trusted: whether what the segment holds is there at once. If not, it is there once it is added again, which
                costs no more than a checksum: for owners who keep the truth elsewhere.

        Raises:
            InvalidInput: no cluster may be searched.
        """
        if probed < 1:
            raise InvalidInput(f"a search looks into one cluster at least, got {probed}", param="probed")
        self.fingerprint, self.dimensions, self.probed = fingerprint, dimensions, probed
        self._folder = folder
        self._lock, self._compacting = threading.RLock(), threading.Lock()
        self._delta = FlatIndex(fingerprint, dimensions)
        self._loader = Loader()
        self._waiting: deque[Ticket] = deque(maxlen=_TICKETS)
        self._changed: set[str] | None = None  # ids since a compaction began
        folder.mkdir(parents=True, exist_ok=True)
        segment = self._opened()
        self._state = _State(segment, np.full(len(segment), trusted)) if segment else None

    def __len__(self) -> int:
        with self._lock:
            return len(self._delta) + (int(self._state.alive.sum()) if self._state else 0)

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        rows = paired(ids, vectors, self.dimensions)
        with self._lock:
            kept = self._standing(ids, rows)
            new = [at for at, same in enumerate(kept) if not same]
            self._delta.remove([id for id, same in zip(ids, kept, strict=True) if same])
            self._delta.add([ids[at] for at in new], rows[new])
            self._mark([id for id, same in zip(ids, kept, strict=True) if same], alive=True)
            self._mark([ids[at] for at in new], alive=False)
            self._note(ids)

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        with self._lock:
            before = len(self)
            self._delta.remove(ids)
            self._mark(ids, alive=False)
            self._note(ids)
            return before - len(self)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        The newest lookahead that no search has used yet is taken for this one's.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        rows, waiting = checked(vectors, self.dimensions), self._waiting
        ticket = waiting.pop() if waiting else None
        return [self.find(row, k, among=among, ticket=ticket).matches for row in rows]

    def find(
        self,
        vector: NDArray[np.float32],
        k: int,
        *,
        among: Collection[str] | None = None,
        deadline: float | None = None,
        ticket: Ticket | None = None,
    ) -> Hits:
        """The best `k` or fewer vectors for one query, and how that is known.

        Args:
            vector: (dimensions,) the query.
            k: most finds wanted.
            among: ids that may be found; None for all. All clusters are searched for them.
            deadline: seconds from now, past which what has been found is given.
            ticket: of a lookahead for this search; it is told what was of use, and ended.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
            StoreError: the disk cannot be read.
        """
        [row] = checked(np.asarray(vector)[None], self.dimensions)
        if k < 0:
            raise InvalidInput(f"k must not be negative, got {k}", param="k")
        until = None if deadline is None else time.monotonic() + deadline
        with self._lock:
            state = self._state
            [new] = self._delta.search(row[None], k, among=among)
        if state is None:
            return Hits(new)
        chosen = state.segment.nearest(row, self.probed if among is None else state.segment.manifest.lists)
        fetched = ticket.used(chosen.tolist()) if ticket is not None else 0
        old, account = certified(state.segment, Asked(row, k, chosen, _allowed(state, among), until))
        if account.damaged:
            _log.warning("%d damaged vectors in %s: compact the index", len(account.damaged), state.segment.folder)
        return Hits(best([*old, *new], k), account.exact, account.degraded, account.rows_read, account.lists, fetched)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        with self._lock:
            found, state = self._delta.vectors(ids), self._state
        rows = state.segment.ids.rows(ids) if state else np.full(len(ids), -1)
        there = np.flatnonzero((rows >= 0) & (state.alive[rows] if state else False))
        if state:
            found[there] = state.segment.rows(rows[there].tolist())[0]
        return found

    def lookahead(self, vector: NDArray[np.float32], *, expect: float, lists: int | None = None) -> Ticket:
        """Bring in what a search near this vector will read, while something else goes on.

        Args:
            vector: (dimensions,) of the text known so far, such as the question that a model is rewriting.
            expect: seconds until the search; with the disk's speed it says how much may be fetched.
            lists: clusters to bring in; twice as many as a search looks into by default.
        """
        [row] = checked(np.asarray(vector)[None], self.dimensions)
        segment = self._state.segment if self._state else None
        ticket = self._loader.ticket(segment, row, expect=expect, lists=lists or 2 * self.probed)
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
        with self._compacting:  # one at a time: each keeps account of what changes meanwhile
            with self._lock:
                ids, vectors = self._all()
                self._changed = set()
            if not ids:
                return
            name = f"{time.time_ns():020d}"
            try:
                build(self._folder / name, ids, vectors, fingerprint=self.fingerprint, lists=lists, progress=progress)
                made = opened(self._folder / name, self.fingerprint, self.dimensions)
                with self._lock:
                    self._swap(made)
            finally:
                self._changed = None

    def close(self) -> None:
        """End lookaheads."""
        self._loader.close()

    def _standing(self, ids: Sequence[str], vectors: Floats) -> list[bool]:
        """Which ids the segment has with these very vectors."""
        if self._state is None:
            encoded(ids)  # refused now, not when a segment is written
            return [False] * len(ids)
        segment = self._state.segment
        rows = segment.ids.rows(ids).tolist()
        return [row >= 0 and segment.same(row, vector) for row, vector in zip(rows, vectors, strict=True)]

    def _mark(self, ids: Collection[str], *, alive: bool) -> None:
        state = self._state
        rows = state.segment.ids.rows(ids) if state else np.empty(0, dtype=np.int64)
        if state and (rows >= 0).any():
            truths = state.alive.copy()
            truths[rows[rows >= 0]] = alive
            self._state = _State(state.segment, truths)

    def _note(self, ids: Collection[str]) -> None:
        if self._changed is not None:
            self._changed.update(ids)

    def _all(self) -> tuple[list[str], Vectors]:
        """Ids and vectors of all there is; those on disk are mapped, not read."""
        new = self._delta.ids
        vectors = self._delta.vectors(new)
        if self._state is None:
            return new, vectors
        rows = np.flatnonzero(self._state.alive)
        old = [self._state.segment.ids[row] for row in rows.tolist()]
        return [*old, *new], Joined(self._state.segment, rows, vectors)

    def _swap(self, made: Segment) -> None:
        """Search in a new segment; what changed while it was written stays in memory, or gone."""
        changed = self._changed or set()
        later = FlatIndex(self.fingerprint, self.dimensions)
        kept = [id for id in self._delta.ids if id in changed]
        later.add(kept, self._delta.vectors(kept))
        alive = np.full(len(made), fill_value=True)
        rows = made.ids.rows(changed)
        alive[rows[rows >= 0]] = False
        self._delta, self._state = later, _State(made, alive)
        self._publish(made.folder.name)

    def _publish(self, name: str) -> None:
        """Name the current segment, and remove those before it; who still reads one has its file open."""
        scratch = self._folder / f".{_CURRENT}"
        scratch.write_text(name)
        os.replace(scratch, self._folder / _CURRENT)
        for other in self._folder.iterdir():
            if other.is_dir() and other.name != name:
                shutil.rmtree(other, ignore_errors=True)

    def _opened(self) -> Segment | None:
        try:
            name = (self._folder / _CURRENT).read_text()
            return opened(self._folder / name, self.fingerprint, self.dimensions)
        except FileNotFoundError:
            return None
        except StoreError as error:
            _log.warning("the index starts empty: %s", error)
            return None


def _allowed(state: _State, among: Collection[str] | None) -> NDArray[np.bool_] | None:
    """Which of a segment's rows may be found; None for all."""
    if among is None:
        return None if state.alive.all() else state.alive
    allowed = np.zeros(len(state.alive), dtype=bool)
    rows = state.segment.ids.rows(among)
    allowed[rows[rows >= 0]] = True
    return allowed & state.alive
