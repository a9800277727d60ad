"""What an index holds at a moment: a segment, which of its rows are alive, and what is new in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered.codes import Floats
from ctxmem.retrieval.tiered.segment import Joined, Segment, Vectors, encoded, row_sums
from ctxmem.retrieval.tiered.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Moment:
    """What is on disk; what changes is replaced, never written to.

    Attributes:
        segment: the vectors.
        alive: (rows,) which of them are still there.
        whole: whether all of them are.
    """

    segment: Segment
    alive: NDArray[np.bool_]
    whole: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", bool(self.alive.all()))

    def allowed(self, among: Collection[str] | None) -> NDArray[np.bool_] | None:
        """(rows,) which may be found; None for all."""
        if among is None:
            return None if self.whole else self.alive
        allowed = np.zeros(len(self.alive), dtype=bool)
        rows = self.segment.ids.rows(among)
        allowed[rows[rows >= 0]] = True
        return allowed & self.alive


class Held:
    """Safe for threads: who reads gets one moment of it.

    Args:
        segment: what is on disk.
        fingerprint: embedder whose vectors it holds.
        dimensions: length of a vector.
        trusted: whether the segment's vectors are there at once, or each once it is added again.
    """

    def __init__(self, segment: Segment | None, fingerprint: str, dimensions: int, *, trusted: bool) -> None:
        self._fingerprint, self._dimensions = fingerprint, dimensions
        self._lock = Sharing()
        self._new = FlatIndex(fingerprint, dimensions)
        self._changed: set[str] | None = None  # ids since a segment began to be written
        self._now: Moment | None = None
        if segment is not None:
            alive = np.full(len(segment), trusted)
            alive[list(segment.gone)] = False
            self._now = Moment(segment, alive)

    def __len__(self) -> int:
        with self._lock.reading():
            return self._size()

    @property
    def now(self) -> Moment | None:
        """What is on disk now."""
        return self._now

    @property
    def damaged(self) -> list[str]:
        """Ids that are there and whose vectors on disk were found damaged."""
        now = self._now
        rows = sorted(now.segment.damaged) if now else []
        return [now.segment.ids[row] for row in rows if now.alive[row]] if now else []

    @property
    def new(self) -> int:
        """Vectors in memory."""
        return len(self._new)

    def add(self, ids: Sequence[str], vectors: Floats) -> None:
        """Put vectors in; those that stand in the segment as they are only come alive."""
        encoded(ids)  # refused now, not when a segment is written
        sums = row_sums(vectors).tolist()  # while searches go on
        with self._lock.writing():
            kept = self._standing(ids, sums)
            new = [at for at, same in enumerate(kept) if not same]
            self._new.remove([id for id, same in zip(ids, kept, strict=True) if same])
            self._new.add([ids[at] for at in new], vectors[new])
            self._mark([id for id, same in zip(ids, kept, strict=True) if same], alive=True)
            self._mark([ids[at] for at in new], alive=False)
            self._note(ids)

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        with self._lock.writing():
            return self._remove(ids)

    def search(self, vectors: Floats, k: int, among: Collection[str] | None) -> tuple[list[list[Match]], Moment | None]:
        """The finds of each query in memory, and what was on disk at that moment."""
        with self._lock.reading():
            new = self._new.search(vectors, k, among=among) if len(self._new) else [[] for _ in vectors]
            return new, self._now

    def vectors(self, ids: Sequence[str]) -> Floats:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        with self._lock.reading():
            found, now = self._new.vectors(ids), self._now
        if now is not None:
            rows = now.segment.ids.rows(ids)
            there = np.flatnonzero((rows >= 0) & now.alive[rows])
            found[there] = now.segment.rows(rows[there].tolist())[0]
        return found

    def begin(self) -> tuple[list[str], Vectors]:
        """Ids and vectors for a segment, those on disk read as they are asked for; from now on changes are noted.

        Without any, there is no segment from now on.
        """
        with self._lock.writing():
            self._changed = set()
            new, now = self._new.ids, self._now
            if now is None or not (new or now.alive.any()):
                self._now = now = None
        with self._lock.reading():
            vectors = self._new.vectors(new)  # zeros for what is removed by now, which is noted
        if now is None:
            return new, vectors
        rows = np.flatnonzero(now.alive)
        return [*(now.segment.ids[row] for row in rows.tolist()), *new], Joined(now.segment, rows, vectors)

    def swap(self, made: Segment) -> None:
        """Hold a segment of what `begin` gave; what changed since stays in memory, or gone."""
        with self._lock.writing():
            changed = self._changed or set()
            later = FlatIndex(self._fingerprint, self._dimensions)
            kept = [id for id in self._new.ids if id in changed]
            later.add(kept, self._new.vectors(kept))
            alive = np.full(len(made), fill_value=True)
            rows = made.ids.rows(changed)
            alive[rows[rows >= 0]] = False
            self._new, self._now = later, Moment(made, alive)

    def end(self) -> None:
        """Changes need not be noted any more."""
        self._changed = None

    def condemn(self, ids: Collection[str] | None) -> list[int]:
        """Take vectors out for good; returns the rows on disk that must be erased, those removed before when None."""
        with self._lock.writing():
            if ids is not None:
                self._remove(ids)
            if self._now is None:
                return []
            segment, alive = self._now.segment, self._now.alive
            rows = set(np.flatnonzero(~alive).tolist() if ids is None else segment.ids.rows(ids).tolist())
            rows -= {-1, *segment.ids.erased.tolist()}
            segment.gone.update(rows)
            return sorted(rows)

    def replace(self, made: Segment) -> None:
        """Hold a copy of the segment, its rows the same but for what was erased."""
        with self._lock.writing():
            if self._now is not None:
                self._now = Moment(made, self._now.alive)

    def _size(self) -> int:
        return len(self._new) + (int(self._now.alive.sum()) if self._now else 0)

    def _remove(self, ids: Collection[str]) -> int:
        before = self._size()
        self._new.remove(ids)
        self._mark(ids, alive=False)
        self._note(ids)
        return before - self._size()

    def _standing(self, ids: Sequence[str], sums: Sequence[int]) -> list[bool]:
        """Which ids the segment has with the very vectors of these checksums."""
        if self._now is None:
            return [False] * len(ids)
        segment = self._now.segment
        rows = segment.ids.rows(ids).tolist()
        return [row >= 0 and segment.same(row, known) for row, known in zip(rows, sums, strict=True)]

    def _mark(self, ids: Collection[str], *, alive: bool) -> None:
        now = self._now
        rows = now.segment.ids.rows(ids) if now else np.empty(0, dtype=np.int64)
        if now and (rows >= 0).any():
            truths = now.alive.copy()
            truths[rows[rows >= 0]] = alive
            self._now = Moment(now.segment, truths)

    def _note(self, ids: Collection[str]) -> None:
        if self._changed is not None:
            self._changed.update(ids)
