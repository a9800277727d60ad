"""Exact search over all vectors: for up to some ten thousand of them nothing is faster than one matrix product."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ctxmem.ports import Match
from ctxmem.ports.index import checked, paired, wanted

_FIRST = 64  # rows of room at first; doubled when full


class FlatIndex:
    """All vectors in one matrix; implements `ctxmem.ports.Index`. Not safe for threads that write: its owner locks.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
    """

    def __init__(self, fingerprint: str, dimensions: int) -> None:
        self.fingerprint = fingerprint
        self.dimensions = dimensions
        self._rows = np.zeros((_FIRST, dimensions), dtype=np.float32)
        self._ids: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        rows = paired(ids, vectors, self.dimensions)
        self._make_room(len(ids))
        for id, row in zip(ids, rows, strict=True):
            place = self._places.setdefault(id, len(self._ids))
            if place == len(self._ids):
                self._ids.append(id)
            self._rows[place] = row

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        gone = [id for id in dict.fromkeys(ids) if id in self._places]
        for id in gone:
            place, last = self._places.pop(id), len(self._ids) - 1
            if place != last:
                self._ids[place] = self._ids[last]
                self._rows[place] = self._rows[last]
                self._places[self._ids[place]] = place
            self._ids.pop()
        return len(gone)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        queries = checked(vectors, self.dimensions)
        k = wanted(k)
        places = self._where(among)
        rows = self._rows[: len(self._ids)] if places is None else self._rows[places]
        scores = queries @ rows.T  # (queries, rows)
        ids = self._ids if places is None else [self._ids[place] for place in places]
        return [_best(ids, line, k) for line in scores]

    @property
    def ids(self) -> list[str]:
        """All ids, in no promised order."""
        return list(self._ids)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        places = [self._places.get(id, -1) for id in ids]
        found = np.zeros((len(ids), self.dimensions), dtype=np.float32)
        held = [at for at, place in enumerate(places) if place >= 0]
        found[held] = self._rows[[places[at] for at in held]]
        return found

    def _where(self, among: Collection[str] | None) -> list[int] | None:
        if among is None:
            return None
        return [place for id in dict.fromkeys(among) if (place := self._places.get(id)) is not None]

    def _make_room(self, more: int) -> None:
        needed = len(self._ids) + more
        if needed > len(self._rows):
            grown = np.zeros((max(needed, 2 * len(self._rows)), self.dimensions), dtype=np.float32)
            grown[: len(self._ids)] = self._rows[: len(self._ids)]
            self._rows = grown


def best(matches: Sequence[Match], k: int) -> list[Match]:
    """The k of the highest scores, equal ones by id."""
    return sorted(matches, key=lambda match: (-match.score, match.id))[:k]


def _best(ids: Sequence[str], scores: NDArray[np.float32], k: int) -> list[Match]:
    """The k highest scores, equal ones by id."""
    k = min(k, len(ids))
    if k == 0:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = [Match(ids[place], float(scores[place])) for place in np.flatnonzero(scores >= least).tolist()]
    return best(found, k)
