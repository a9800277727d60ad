"""Writing a segment: clusters by k-means, codes by the range of each dimension, everything list-major."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput, StoreError
from ctxmem.ports.index import checked
from ctxmem.retrieval.tiered.codes import Floats, faiss
from ctxmem.retrieval.tiered.segment import (
    CODES,
    FORMAT,
    IDS,
    MANIFEST,
    RESIDUALS,
    ROWS,
    SUMS,
    Manifest,
    Vectors,
    encoded,
    file_sum,
    row_sums,
)

Progress = Callable[[str, float], None]
"""Takes the stage and the share of it that is done."""

_BLOCK = 65_536  # vectors handled at a time
_STEPS = 10  # of k-means
_SAMPLE = 64  # training vectors per cluster


def build(
    folder: Path,
    ids: Sequence[str],
    vectors: Vectors,
    *,
    fingerprint: str,
    lists: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a segment; it is there whole or not at all.

    Args:
        folder: its place, which must not be there yet.
        ids: of the vectors.
        vectors: (len(ids), dimensions) the vectors; may be mapped from a file.
        fingerprint: embedder whose vectors they are.
        lists: clusters; about four times the root of the number of vectors by default.
        progress: told how far each stage is.

    Raises:
        InvalidInput: no vectors, another number than ids, no clusters, an id twice, or a value that is not finite.
        StoreError: the disk is full or cannot be written; nothing is left behind.
    """
    if len(vectors.shape) != 2 or len(ids) != len(vectors) or not len(ids) or len(set(ids)) != len(ids):
        raise InvalidInput(f"{len(set(ids))} distinct ids for vectors of shape {vectors.shape}", param="ids")
    if lists is not None and lists < 1:
        raise InvalidInput(f"vectors are put in one cluster at least, got {lists}", param="lists")
    told = progress or (lambda stage, share: None)
    number = min(lists or max(1, int(4 * len(ids) ** 0.5)), len(ids))
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        codes = _trained(vectors, number, told)
        _fill(scratch, codes, (ids, vectors), fingerprint, told)
        settle(scratch, folder)
    except (OSError, RuntimeError) as error:  # faiss has no error of its own for a full disk
        raise StoreError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(folder: Path, codes: Any, given: tuple[Sequence[str], Vectors], fingerprint: str, told: Progress) -> None:
    """All files of a segment."""
    ids, vectors = given
    nearest = [codes.quantizer.search(block, 1)[1][:, 0] for block in _blocks(vectors, "assign", told)]
    order = np.argsort(np.concatenate(nearest), kind="stable")
    longest = _write(folder, codes, vectors, order, told)
    np.save(folder / IDS, encoded(ids)[order])
    declare(folder, Manifest(FORMAT, fingerprint, vectors.shape[1], len(ids), codes.nlist, longest, {}))


def declare(folder: Path, manifest: Manifest) -> None:
    """Write a segment's manifest, with the checksums of the files that are there."""
    sums = {name: file_sum(folder / name) for name in (CODES, IDS, RESIDUALS, SUMS)}
    (folder / MANIFEST).write_text(json.dumps(asdict(replace(manifest, sums=sums))))


def settle(scratch: Path, folder: Path) -> None:
    """Move a segment to its place once all of it is on the disk."""
    sync(*scratch.iterdir(), scratch)
    os.replace(scratch, folder)
    sync(folder.parent)


def _trained(vectors: Vectors, lists: int, told: Progress) -> Any:
    """Centroids and ranges of codes, by a sample."""
    rng = np.random.default_rng(0)
    count = min(len(vectors), max(_SAMPLE * lists, 4096))
    sample = np.ascontiguousarray(vectors[np.sort(rng.choice(len(vectors), count, replace=False))], dtype=np.float32)
    dimensions = sample.shape[1]
    checked(sample, dimensions)
    means = faiss.Kmeans(dimensions, lists, niter=1, spherical=True, seed=1, min_points_per_centroid=1, verbose=False)
    for step in range(_STEPS):
        told("cluster", step / _STEPS)
        means.train(sample, init_centroids=means.centroids)
    told("cluster", 1.0)
    quantizer = faiss.IndexFlatIP(dimensions)
    quantizer.add(means.centroids)
    kind = faiss.ScalarQuantizer.QT_8bit
    metric, of_residuals = faiss.METRIC_INNER_PRODUCT, False
    codes = faiss.IndexIVFScalarQuantizer(quantizer, dimensions, lists, kind, metric, of_residuals)
    quantizer.this.disown()
    codes.own_fields = True
    codes.train(sample)
    return codes


def _write(folder: Path, codes: Any, vectors: Vectors, order: NDArray[np.int64], told: Progress) -> float:
    """Rows, checksums, codes and residuals, list-major; returns the norm of the longest vector."""
    longest = 0.0
    with (
        (folder / ROWS).open("wb") as rows,
        (folder / SUMS).open("wb") as sums,
        (folder / RESIDUALS).open("wb") as residuals,
    ):
        for start in range(0, len(order), _BLOCK):
            block = np.ascontiguousarray(vectors[order[start : start + _BLOCK]], dtype="<f4")
            checked(block, block.shape[1])
            rows.write(block.tobytes())
            sums.write(row_sums(block).astype("<u8").tobytes())
            decoded = codes.sq.decode(codes.sq.compute_codes(block))
            residuals.write(np.linalg.norm(block - decoded, axis=1).astype("<f4").tobytes())
            codes.add_with_ids(block, np.arange(start, start + len(block)))
            longest = max(longest, float(np.linalg.norm(block, axis=1).max()))
            told("write", (start + len(block)) / len(order))
    faiss.write_index(codes, str(folder / CODES))
    return longest


def _blocks(vectors: Vectors, stage: str, told: Progress) -> Iterator[Floats]:
    for start in range(0, len(vectors), _BLOCK):
        yield np.ascontiguousarray(vectors[start : start + _BLOCK], dtype=np.float32)
        told(stage, min(1.0, (start + _BLOCK) / len(vectors)))


def sync(*paths: Path) -> None:
    """Wait until files and folders are on the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
