"""Nearest neighbours, by whatever engine."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ctxmem.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Match:
    """One find of an index.

    Attributes:
        id: what was added under it.
        score: how alike; higher is better, and comparable within one search only.
    """

    id: str
    score: float


class Index(Protocol):
    """Nearest vectors by inner product, over ids. May be lost at any time: the truth it is built from is elsewhere.

    Attributes:
        fingerprint: name of the embedder whose vectors it holds.
        dimensions: length of a vector.
    """

    @property
    def fingerprint(self) -> str: ...
    @property
    def dimensions(self) -> int: ...

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Put (len(ids), dimensions) vectors in; one whose id is there takes the old one's place.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or an id twice. Nothing is changed.
        """
        ...

    def remove(self, ids: Collection[str]) -> int:
        """Take vectors out; returns how many were there."""
        ...

    def search(
        self, vectors: NDArray[np.float32], k: int, *, among: Collection[str] | None = None
    ) -> list[list[Match]]:
        """For each of the (queries, dimensions) vectors the best `k` or fewer, best first; equal scores by id.

        Args:
            vectors: what to look for.
            k: most matches per query; more than there are gives all.
            among: ids that may be found; None for all, ids that are not there do not matter.

        Raises:
            InvalidInput: another dimension, a value that is not finite, or a negative `k`.
        """
        ...


class Ticket(Protocol):
    """A lookahead under way.

    Attributes:
        ended: whether nothing more is brought in for it.
    """

    @property
    def ended(self) -> bool: ...

    def feed(self, vector: NDArray[np.float32]) -> int:
        """Look ahead from this (dimensions,) vector, too; returns how much that adds."""
        ...

    def cancel(self) -> None:
        """End it; no search comes."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """What a `HotTier` knows of one search.

    Attributes:
        rows: of the best `k` vectors and all that score as the last of them, in the clusters that it holds.
        scores: theirs.
        left: clusters that it does not hold.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    left: NDArray[np.int64]


class HotTier(Protocol):
    """Holds the vectors of some clusters where they are scored fast, such as a GPU. Safe for threads.

    Clusters are an owner's, which is known by its identity and referred to weakly: they go with it.
    """

    def hold(self, owner: object, number: int, start: int, vectors: NDArray[np.float32]) -> bool:
        """Hold a cluster; whether there is room, for which others may have to go.

        Args:
            owner: whose.
            number: the cluster.
            start: its first row.
            vectors: (rows, dimensions) all of them.
        """
        ...

    def held(self, owner: object) -> frozenset[int]:
        """The clusters of an owner that are held."""
        ...

    def search(
        self,
        owner: object,
        queries: NDArray[np.float32],
        k: int,
        lists: Sequence[NDArray[np.int64]],
        allowed: NDArray[np.bool_] | None,
    ) -> list[Held]:
        """For each of (queries, dimensions) vectors the best in those of its clusters that are held, and in no others.

        Args:
            owner: whose.
            queries: what is looked for.
            k: most finds wanted.
            lists: for each query its clusters.
            allowed: (rows of the owner,) whether each may be found; None for all.
        """
        ...

    def drop(self, owner: object) -> None:
        """Hold nothing of an owner any more."""
        ...


@runtime_checkable
class Lookahead(Protocol):
    """An index that can get ready for a search before its query is known."""

    def lookahead(self, vector: NDArray[np.float32], *, expect: float, growing: bool = False) -> Ticket:
        """Bring in what a search near this (dimensions,) vector, `expect` seconds away, will read.

        Args:
            vector: what is known of the query.
            expect: seconds until the search.
            growing: whether the ticket will be fed with more.
        """
        ...


@runtime_checkable
class Returning(Protocol):
    """An index that gives vectors back."""

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), dimensions) vectors; zeros for ids that are not there."""
        ...


@runtime_checkable
class Keeping(Protocol):
    """An index that keeps vectors on a disk, for an owner that keeps the truth elsewhere.

    Attributes:
        approximate: whether a search may look at less than all there is.
        damaged: ids whose vectors were found damaged; they are whole again once they are added.
    """

    @property
    def approximate(self) -> bool: ...
    @property
    def damaged(self) -> list[str]: ...

    def tend(self) -> None:
        """Begin to write to the disk what should not stay in memory, where there is enough of it; searches go on."""
        ...

    def erase(self, ids: Collection[str] | None = None) -> int:
        """Take vectors out and off the disk at once, by default all that were taken out; returns how many those were.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        ...

    def close(self) -> None:
        """Write nothing more; returns when nothing is being written."""
        ...


def checked(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Vectors as an index takes them.

    Raises:
        InvalidInput: another dimension, a value that is not finite, or no numbers.
    """
    import numpy as np

    try:
        rows = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"vectors are no rows of numbers: {error}", param="vectors") from error
    if rows.ndim != 2 or rows.shape[1] != dimensions:
        raise InvalidInput(f"vectors of shape {rows.shape}, expected (n, {dimensions})", param="vectors")
    if not np.isfinite(rows).all():
        raise InvalidInput("a vector has a value that is not finite", param="vectors")
    return rows


def paired(ids: Sequence[str], vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The same, one for each of some distinct ids.

    Raises:
        InvalidInput: as `checked`, another number of vectors, an id twice, or one that is no text.
    """
    rows = checked(vectors, dimensions)
    if not all(isinstance(id, str) for id in ids):
        raise InvalidInput("an id is no text", param="ids")
    if len(rows) != len(ids) or len(set(ids)) != len(ids):
        raise InvalidInput(f"{len(rows)} vectors for {len(set(ids))} distinct ids", param="ids")
    return rows


def wanted(k: int) -> int:
    """How many finds are wanted.

    Raises:
        InvalidInput: no whole number, or a negative one.
    """
    try:
        number = operator.index(k)
    except TypeError as error:
        raise InvalidInput(f"k is a whole number, got {k!r}", param="k") from error
    if number < 0:
        raise InvalidInput(f"k must not be negative, got {number}", param="k")
    return number
