"""The codes of a segment's vectors: a byte per dimension (SQ8), cluster by cluster, in memory; and scores of them.

A code stands for a vector, so the query's part of their product can be worked out once. To find the best codes it is
rounded to whole numbers of a byte too: faiss multiplies those several times as fast as codes that it must decode first.
How far such a rough score may be off is known, so nothing is lost by it; the few best are then scored in full.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its published types know half of it
Floats = NDArray[np.float32]

_MIDDLE = 128  # what faiss takes off a byte before it multiplies
_LEVELS = 255  # steps of a code over the range of its dimension
_WHOLE = 127  # largest whole number that a query is rounded to


@dataclass(frozen=True, slots=True)
class Rounded:
    """A query made ready for codes.

    Attributes:
        scaled: (dimensions,) what a step of the code in each dimension adds to the score.
        base: score of a code whose bytes are all in the middle.
        whole: (dimensions,) `scaled` in whole numbers of `unit`.
        unit: what one of them is worth.
        off: by how much a rough score may differ from the code's.
    """

    scaled: Floats
    base: float
    whole: Floats
    unit: float
    off: float


class Codes:
    """Safe for threads.

    Attributes:
        index: faiss's index over them; its labels are rows.
        starts: (lists + 1,) first row of each cluster, and the end.
    """

    def __init__(self, path: Path, gone: Collection[int]) -> None:
        """Read them; those of erased rows bound nothing."""
        self.index = faiss.read_index(str(path))
        self._lists = [self._view(number) for number in range(self.index.nlist)]
        self.starts = np.concatenate(([0], np.cumsum([len(view) for view in self._lists], dtype=np.int64)))
        low, self._range = np.split(faiss.vector_to_array(self.index.sq.trained).astype(np.float64), 2)
        self._centre = low + self._range * ((_MIDDLE + 0.5) / _LEVELS)
        norms = np.concatenate([np.empty(0, dtype=np.float32), *map(_norms, self._lists)])
        norms[list(gone)] = 0
        self._longest = float(norms.max(initial=0))
        kind, metric = faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        width, lists, by_residual, owned = self.index.d, self.index.nlist, False, False
        self._rough = faiss.IndexIVFScalarQuantizer(self.index.quantizer, width, lists, kind, metric, by_residual)
        self._rough.own_fields = owned
        self._rough.replace_invlists(self.index.invlists, owned)  # the same bytes, read as whole numbers
        self._rough.is_trained, self._rough.ntotal = True, self.index.ntotal

    def rounded(self, query: Floats) -> Rounded:
        """A (dimensions,) query made ready."""
        scaled = query * self._range / _LEVELS
        unit = float(np.abs(scaled).max()) / _WHOLE or 1.0
        whole = np.rint(scaled / unit)
        off = float(np.linalg.norm(scaled - unit * whole)) * self._longest
        return Rounded(scaled.astype(np.float32), float(query @ self._centre), whole.astype(np.float32), unit, off)

    def search(
        self, query: Rounded, k: int, lists: NDArray[np.int64], selector: Any
    ) -> tuple[Floats, NDArray[np.int64]]:
        """The best k or fewer codes in some clusters: rough scores, falling, and rows."""
        probes, unused = lists[None], np.zeros((1, len(lists)), dtype=np.float32)
        scores, rows = np.empty((1, k), dtype=np.float32), np.empty((1, k), dtype=np.int64)
        parameters, pairs = faiss.SearchParametersIVF(nprobe=len(lists), sel=selector), False
        pointers = [faiss.swig_ptr(array) for array in (query.whole, probes, unused, scores, rows)]
        self._rough.search_preassigned_c(1, pointers[0], k, *pointers[1:], pairs, parameters)
        there = rows[0] >= 0
        return query.unit * scores[0][there] + np.float32(query.base), rows[0][there]

    def scores(self, query: Rounded, rows: NDArray[np.int64]) -> Floats:
        """(rows,) scores of the codes themselves."""
        if not len(rows):
            return np.empty(0, dtype=np.float32)
        clusters = self.cluster_of(rows)
        places = zip(clusters.tolist(), (rows - self.starts[clusters]).tolist(), strict=True)
        codes = np.concatenate([self._lists[number][at] for number, at in places]).reshape(len(rows), -1)
        found: Floats = np.subtract(codes, _MIDDLE, dtype=np.float32) @ query.scaled + np.float32(query.base)
        return found

    def decoded(self, row: int) -> Floats:
        """(dimensions,) what is left of a vector in its code."""
        [number] = self.cluster_of([row]).tolist()
        at = row - int(self.starts[number])
        vector: Floats = self.index.sq.decode(self._lists[number][at : at + 1].copy())[0]
        return vector

    def nearest(self, vector: Floats, lists: int) -> NDArray[np.int64]:
        """The clusters nearest to a vector, best first."""
        if not lists:
            return np.empty(0, dtype=np.int64)
        _, found = self.index.quantizer.search(vector[None], min(lists, len(self._lists)))
        kept: NDArray[np.int64] = found[0][found[0] >= 0]
        return kept

    def cluster_of(self, rows: NDArray[np.int64] | Collection[int]) -> NDArray[np.int64]:
        """The cluster of each row."""
        found: NDArray[np.int64] = np.searchsorted(self.starts, np.asarray(rows), side="right") - 1
        return found

    def _view(self, number: int) -> NDArray[np.uint8]:
        """(rows, dimensions) a cluster's codes, where faiss has them."""
        size, width = self.index.invlists.list_size(number), self.index.code_size
        if not size:
            return np.empty((0, width), dtype=np.uint8)
        held: NDArray[np.uint8] = faiss.rev_swig_ptr(self.index.invlists.get_codes(number), size * width)
        return held.reshape(size, width)


def _norms(codes: NDArray[np.uint8]) -> Floats:
    """(rows,) length of each code, counted from the middle."""
    centred = np.subtract(codes, _MIDDLE, dtype=np.float32)
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    return lengths
