"""Layer weights read from safetensors when they are needed, into buffers that are used again.

Source: GRATING / PRISM (arXiv 2510.15620), section 4.2 (two buffers: layer i computes while layer i + 1 is read) and
4.4 (only the embedding rows that occur are held). Files are read with `pread`, not mapped: mapped pages would count as
resident, and a file cut short under a mapping kills the process.
"""

from __future__ import annotations

import copy
import json
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctxmem.errors import ModelError

_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I8": torch.int8}


class TensorFile:
    """One safetensors file, open for reading single tensors and rows of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
            (size,) = struct.unpack("<Q", os.pread(self._file, 8, 0))
            self._index = json.loads(os.pread(self._file, size, 8))
        except (OSError, ValueError, struct.error) as error:
            raise ModelError(f"{path} is no safetensors file: {error}") from error
        self._base = 8 + size
        self._stamp = self._now()

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def check(self) -> None:
        """See that the file is the one that was opened.

        Raises:
            ModelError: it was replaced or changed.
        """
        if self._now() != self._stamp:
            raise ModelError(f"{self.path} changed while it was in use; load the model again")

    def read(self, name: str, out: Tensor | None = None) -> Tensor:
        """A tensor, in `out` when that has its type and shape."""
        entry = self._index[name]
        start, stop = entry["data_offsets"]
        kind = _TYPES[entry["dtype"]]
        fits = out is not None and out.dtype == kind and list(out.shape) == entry["shape"] and out.is_contiguous()
        target = out if fits and out is not None else torch.empty(entry["shape"], dtype=kind)
        view = _bytes_of(target.detach())
        self._fill(view, self._base + start, stop - start)
        return target

    def rows(self, name: str, places: Sequence[int]) -> Tensor:
        """(places, width) some rows of a matrix."""
        entry = self._index[name]
        width, kind = entry["shape"][1], _TYPES[entry["dtype"]]
        made = torch.empty((len(places), width), dtype=kind)
        size = width * kind.itemsize
        for at, place in enumerate(places):
            view = _bytes_of(made[at])
            self._fill(view, self._base + entry["data_offsets"][0] + place * size, size)
        return made

    def span(self, name: str, start: int, stop: int) -> Tensor:
        """(stop - start, width) neighbouring rows of a matrix."""
        entry = self._index[name]
        width, kind = entry["shape"][1], _TYPES[entry["dtype"]]
        made = torch.empty((stop - start, width), dtype=kind)
        size = width * kind.itemsize
        view = _bytes_of(made)
        self._fill(view, self._base + entry["data_offsets"][0] + start * size, (stop - start) * size)
        return made

    def close(self) -> None:
        os.close(self._file)

    def _fill(self, view: memoryview, offset: int, size: int) -> None:
        done = 0
        while done < size:
            got = os.preadv(self._file, [view[done:size]], offset + done)
            if not got:
                raise ModelError(f"{self.path} ends before its tensors do")
            done += got

    def _now(self) -> tuple[int, int, int]:
        there = os.stat(self.path)
        return there.st_ino, there.st_size, there.st_mtime_ns


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor, to be written into."""
    raw: Any = tensor.view(-1).view(torch.uint8).numpy()
    return memoryview(raw)


class RowCache(nn.Module):
    """Stands in for an embedding matrix: holds the rows used last and reads others from the file.

    Args:
        file: where the matrix is.
        name: its name there.
        most: rows held; a tenth of a vocabulary is more than a request touches (PRISM: at most 6.75 %).
    """

    def __init__(self, file: TensorFile, name: str, *, most: int = 4096) -> None:
        super().__init__()
        self._file, self._name, self._most = file, name, most
        self._rows: OrderedDict[int, Tensor] = OrderedDict()

    def forward(self, ids: Tensor) -> Tensor:
        needed, inverse = torch.unique(ids, return_inverse=True)
        places = needed.tolist()
        missing = [place for place in places if place not in self._rows]
        for place, row in zip(missing, self._file.rows(self._name, missing), strict=True):
            self._rows[place] = row.clone()
        table = torch.stack([self._rows[place] for place in places])
        for place in places:
            self._rows.move_to_end(place)
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)
        return table[inverse]


class Resident:
    """Every layer in memory."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers

    def layer(self, at: int) -> nn.Module:
        return self.layers[at]

    def close(self) -> None:
        """Nothing to let go of."""


class Streamed:
    """Two layers in memory: the one that computes and the one being read.

    Args:
        template: a layer; both buffers are copies of it.
        fill: writes the weights of one layer into a buffer.
        count: layers of the model.
    """

    def __init__(self, template: nn.Module, fill: Callable[[int, nn.Module], None], count: int) -> None:
        self._buffers = (template, copy.deepcopy(template))
        self._fill, self._count = fill, count
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="layer-reader")
        self._coming: dict[int, Future[None]] = {}
        self._held: list[int] = [-1, -1]

    def layer(self, at: int) -> nn.Module:
        """The layer, once it is read; starts reading the next one (after the last, the first)."""
        self._want(at)
        self._coming[at % 2].result()
        following = (at + 1) % self._count
        if following % 2 != at % 2:
            self._want(following)
        return self._buffers[at % 2]

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _want(self, at: int) -> None:
        side = at % 2
        if self._held[side] != at:
            self._held[side] = at
            self._coming[side] = self._reader.submit(self._fill, at, self._buffers[side])
