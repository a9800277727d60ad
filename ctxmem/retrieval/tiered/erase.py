"""Erasing vectors from a segment on the disk: nothing of them may be left in any of its files.

The small files (codes, ids, residuals, checksums, centroids) are written anew beside the old ones, the vectors' file is
shared. Once the new ones are the current ones, the vectors are overwritten in place. Cut off at any point, either the
erasure has not begun, or whoever opens the segment next ends it: a row without an id is one to be overwritten.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctxmem.errors import StoreError
from ctxmem.retrieval.tiered.build import declare, settle, sync
from ctxmem.retrieval.tiered.codes import Floats, faiss
from ctxmem.retrieval.tiered.segment import CODES, IDS, RESIDUALS, ROWS, SUMS, Segment


def blanked(segment: Segment, rows: Sequence[int], folder: Path) -> None:
    """Write the segment to another folder, without what it says of some rows but in its vectors' file; see `overwrite`.

    Rows keep their numbers.

    Raises:
        StoreError: the disk is full or cannot be written; nothing is left behind.
    """
    gone, scratch = sorted(segment.gone | set(rows)), folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        _share(segment.folder / ROWS, scratch / ROWS)
        faiss.write_index(_codes(segment, gone, rows), str(scratch / CODES))
        np.save(scratch / IDS, segment.ids.without(gone))
        for name, held in ((RESIDUALS, segment.residuals), (SUMS, segment.sums)):
            left = held.copy()
            left[gone] = 0
            left.tofile(scratch / name)
        declare(scratch, segment.manifest)
        settle(scratch, folder)
    except (OSError, RuntimeError) as error:  # faiss has no error of its own for a full disk
        raise StoreError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def overwrite(segment: Segment) -> None:
    """Put zeros where erased vectors still are.

    Raises:
        StoreError: the disk cannot be written.
    """
    if not segment.gone:
        return
    width, path = 4 * segment.manifest.dimensions, segment.folder / ROWS
    try:
        with path.open("r+b", buffering=0) as file:
            for row in sorted(segment.gone):
                if any(os.pread(file.fileno(), width, width * row)):
                    os.pwrite(file.fileno(), bytes(width), width * row)
        sync(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _share(old: Path, new: Path) -> None:
    """The same file under two names; a copy where the file system has no such thing."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _codes(segment: Segment, gone: Sequence[int], rows: Sequence[int]) -> Any:
    """The codes, those of erased rows zeros; a cluster that had one has the centre of what is left.

    A centre may be one vector's very values where the cluster has no more than that.
    """
    codes = faiss.read_index(str(segment.folder / CODES))
    nothing = np.zeros(codes.code_size, dtype=np.uint8)
    lists = segment.codes.cluster_of(rows)
    for row, number in zip(rows, lists.tolist(), strict=True):
        offset = row - int(segment.starts[number])
        codes.invlists.update_entry(number, offset, row, faiss.swig_ptr(nothing))
    quantizer = faiss.downcast_index(codes.quantizer)
    centres = faiss.rev_swig_ptr(quantizer.get_xb(), quantizer.ntotal * quantizer.d).reshape(-1, quantizer.d)
    for number in np.unique(lists).tolist():
        whole = np.arange(segment.starts[number], segment.starts[number + 1])
        centres[number] = _centre(segment.rows(whole[~np.isin(whole, gone)].tolist())[0])
    return codes


def _centre(vectors: Floats) -> Floats:
    """(dimensions,) their mean's direction; zeros when there are none."""
    summed: Floats = vectors.sum(axis=0)
    length = float(np.linalg.norm(summed))
    return summed / length if length > 0 else np.zeros_like(summed)
