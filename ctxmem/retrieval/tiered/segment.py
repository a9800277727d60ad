"""A segment: vectors on disk that never change, cluster by cluster, and what of them is held in memory to search them.

In memory are the clusters' centroids, a byte per dimension of each vector (SQ8), and how far each vector is from its
code. On disk are the vectors themselves, list-major, so that a cluster is one range of a file. A segment is written
beside its place and moved there whole; what is damaged is told by its checksums.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput, StoreError
from ctxmem.retrieval.tiered.codes import Codes, Floats


class Vectors(Protocol):
    """What a segment is built of: an array, one mapped from a file, or `Joined`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...
    def __getitem__(self, places: slice | NDArray[np.int64]) -> Floats: ...


ROWS, SUMS, CODES, IDS, RESIDUALS, MANIFEST = (
    "rows.f32",
    "sums.u64",
    "codes.faiss",
    "ids.npy",
    "residuals.f32",
    "manifest.json",
)
FORMAT = 2
_SUMMED = 4096  # vectors whose checksums are made at a time
_MULTIPLIER = 0x9E3779B97F4A7C15  # its powers are all different, and odd
_OUTLIERS = 0.001
"""Share of the vectors, those farthest from their codes, that are held in memory: a few would loosen every bound."""
BLANK = b"\0\1"
"""What stands for the id of an erased vector; no id has a NUL."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a segment says of itself.

    Attributes:
        format: version of the files.
        fingerprint: embedder whose vectors it holds.
        dimensions: length of a vector.
        count: vectors.
        lists: clusters.
        longest: norm of the longest vector.
        sums: SHA-256 of each file that is read whole, in hex.
    """

    format: int
    fingerprint: str
    dimensions: int
    count: int
    lists: int
    longest: float
    sums: dict[str, str]


class Names:
    """Ids by row and rows by id, in their bytes and four more of each: a million of Python's own would take 150 MB."""

    def __init__(self, held: NDArray[np.bytes_]) -> None:
        self._held = held
        self._order = np.argsort(held, kind="stable").astype(np.int32)

    @property
    def erased(self) -> NDArray[np.int64]:
        """Rows whose ids were erased, ascending."""
        return np.flatnonzero(self._held == BLANK)

    def without(self, rows: Collection[int]) -> NDArray[np.bytes_]:
        """The ids in their bytes, those of some rows erased."""
        left = self._held.astype(f"S{max(len(BLANK), self._held.itemsize)}")
        left[list(rows)] = BLANK
        return left

    def __getitem__(self, row: int) -> str:
        return bytes(self._held[row]).decode("utf-8", "surrogatepass")

    def rows(self, ids: Collection[str]) -> NDArray[np.int64]:
        """The row of each id; -1 for one that is not there."""
        can = np.array(["\0" not in id for id in ids], dtype=bool)
        wanted = encoded([id if named else "" for id, named in zip(ids, can.tolist(), strict=True)])
        if not len(wanted) or not len(self._held):
            return np.full(len(wanted), -1, dtype=np.int64)
        places = np.searchsorted(self._held, wanted, sorter=self._order)
        rows = self._order[np.minimum(places, len(self._held) - 1)].astype(np.int64)
        return np.where(can & (self._held[rows] == wanted), rows, -1)


def encoded(ids: Collection[str]) -> NDArray[np.bytes_]:
    """Ids as bytes of one width.

    Raises:
        InvalidInput: one has a NUL, which ends it there.
    """
    raws = [id.encode("utf-8", "surrogatepass") for id in ids]
    if any(b"\0" in raw for raw in raws):
        raise InvalidInput("an id has a NUL", param="ids")
    return np.array(raws, dtype=np.bytes_) if raws else np.empty(0, dtype="S1")


class Segment:
    """An opened segment. Safe for threads: nothing in it changes but that vectors are erased.

    Attributes:
        manifest: what it says of itself.
        ids: of its vectors, list-major: a vector's place is its row in the file.
        codes: of its vectors.
        residuals: (count,) distance of each vector from its code.
        starts: (lists + 1,) first row of each cluster, and the end.
        outliers: rows that lie farther from their codes than `cap`, ascending.
        far: (outliers, dimensions) their vectors.
        cap: residual of all others, at most.
        sums: (count,) checksum of each vector.
        damaged: rows that were found damaged.
        gone: rows whose vectors were erased; they are zeros on the disk, or are about to be.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read what is held in memory; see `opened`."""
        self.folder, self.manifest = folder, manifest
        self.ids = Names(np.load(folder / IDS, allow_pickle=False))
        self.gone = set(self.ids.erased.tolist())
        self.codes = Codes(folder / CODES, self.gone)
        self.starts = self.codes.starts
        self.residuals: Floats = np.fromfile(folder / RESIDUALS, dtype="<f4")
        kept = max(0, manifest.count - int(np.ceil(_OUTLIERS * manifest.count)) - 1)
        self.cap = float(np.partition(self.residuals, kept)[kept]) if manifest.count else 0.0
        self.outliers = np.flatnonzero(self.residuals > self.cap)
        self.damaged: set[int] = set()
        self.sums: NDArray[np.uint64] = np.fromfile(folder / SUMS, dtype="<u8")
        self._file = os.open(folder / ROWS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)  # a search under way may still read a segment that was replaced
        self._width = 4 * manifest.dimensions
        self.far, damaged = self.rows(self.outliers.tolist())
        for row in damaged:
            self.far[np.searchsorted(self.outliers, row)] = self.codes.decoded(row)
        self._far_in = self.codes.cluster_of(self.outliers)

    def __len__(self) -> int:
        return self.manifest.count

    def rows(self, places: Sequence[int]) -> tuple[Floats, list[int]]:
        """(len(places), dimensions) vectors from the disk, zeros for erased ones, and the places of damaged ones.

        Raises:
            StoreError: the disk cannot be read.
        """
        raws = [self._read(self._width * place, self._width).ljust(self._width, b"\0") for place in places]
        found = np.frombuffer(bytearray().join(raws), dtype="<f4").reshape(len(places), self.manifest.dimensions)
        if self.gone:
            found[[place in self.gone for place in places]] = 0
        wrong = np.flatnonzero(row_sums(found) != self.sums[list(places)]).tolist()
        damaged = [places[at] for at in wrong if places[at] not in self.gone]
        self.damaged.update(damaged)
        return found, damaged

    def outlying(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the outliers are in some clusters."""
        there = np.zeros(self.manifest.lists, dtype=bool)
        there[lists] = True
        found: NDArray[np.int64] = np.flatnonzero(there[self._far_in])
        return found

    def same(self, place: int, checksum: int) -> bool:
        """Whether the vector in a row has this checksum, and was neither erased nor found damaged."""
        return place not in self.gone and place not in self.damaged and int(self.sums[place]) == checksum

    def span(self, number: int) -> tuple[int, int]:
        """Where a cluster's vectors lie in the file: offset and length in bytes."""
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        return self._width * start, self._width * (end - start)

    def touch(self, offset: int, length: int) -> int:
        """Bring a range of the file into the page cache; returns how many bytes were read."""
        return len(self._read(offset, length))

    def clusters(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The clusters that rows are in, ascending."""
        found: NDArray[np.int64] = np.unique(self.codes.cluster_of(rows))
        return found

    def nearest(self, vector: Floats, lists: int) -> NDArray[np.int64]:
        """The clusters nearest to a vector, best first."""
        return self.codes.nearest(vector, lists)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._file, length, offset)
        except OSError as error:
            raise StoreError(f"{self.folder / ROWS} cannot be read: {error}") from error


class Joined:
    """Some rows of a segment, then vectors in memory, read as they are asked for; as `build` reads an array."""

    def __init__(self, segment: Segment, rows: NDArray[np.int64], more: Floats) -> None:
        self._segment, self._rows, self._more = segment, rows, more
        self.shape = (len(rows) + len(more), segment.manifest.dimensions)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | NDArray[np.int64]) -> Floats:
        wanted = np.arange(len(self))[places]
        found = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        old = wanted < len(self._rows)
        found[~old] = self._more[wanted[~old] - len(self._rows)]
        found[old], damaged = self._segment.rows(self._rows[wanted[old]].tolist())
        if damaged:
            raise StoreError(f"{len(damaged)} vectors in {self._segment.folder} are damaged: add them again")
        return found


def opened(folder: Path, fingerprint: str, dimensions: int) -> Segment:
    """Open a segment.

    Raises:
        StoreError: a file is missing, cut off or damaged, or of another embedder.
    """
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_bytes()))
        if manifest.format != FORMAT:
            raise StoreError(f"{folder} has format {manifest.format}, this version reads {FORMAT}")
        if (manifest.fingerprint, manifest.dimensions) != (fingerprint, dimensions):
            raise StoreError(f"{folder} holds vectors of {manifest.fingerprint!r}, not of {fingerprint!r}")
        for name, wanted in manifest.sums.items():
            if file_sum(folder / name) != wanted:
                raise StoreError(f"{folder / name} is damaged")
        if (folder / ROWS).stat().st_size != 4 * manifest.dimensions * manifest.count:
            raise StoreError(f"{folder / ROWS} is cut off")
        return Segment(folder, manifest)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{folder} is no whole segment: {error}") from error


def row_sums(vectors: Floats) -> NDArray[np.uint64]:
    """(count,) checksums of (count, dimensions) vectors: of their words, a polynomial's value modulo 2 ** 64."""
    words = np.ascontiguousarray(vectors, dtype="<f4").view("<u4")
    powers, sums = _powers(words.shape[1]), np.empty(len(words), dtype=np.uint64)
    for at in range(0, len(words), _SUMMED):
        sums[at : at + _SUMMED] = words[at : at + _SUMMED].astype(np.uint64) @ powers
    return sums


@cache
def _powers(count: int) -> NDArray[np.uint64]:
    powers: NDArray[np.uint64] = np.cumprod(np.full(count, _MULTIPLIER, dtype=np.uint64), dtype=np.uint64)
    return powers


def file_sum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
