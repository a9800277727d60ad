"""Clusters of vectors held as tensors on a device, and scored there: the hot tier of an index on disk.

After TeleRAG (arXiv 2502.20969), whose GPU scores everything that is resident for every query, so that what is found
depends on what was there. Here a mask lets each query see its own clusters alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctxmem.errors import ConfigError
from ctxmem.ports.index import Held, HotTier

ROOM = 512 * 2**20
"""Bytes of vectors that are held at most, unless the caller says otherwise."""


@dataclass(slots=True)
class _Slab:
    """A cluster on the device: its first row, (rows, dimensions) float32, and when it was last of use."""

    start: int
    vectors: Tensor
    used: int


class TorchTier(HotTier):
    """Vectors of clusters on a device, those that were not of use for longest making room. Safe for threads.

    Not to be shared with a process that is forked off.

    Args:
        device: as torch names it, such as `cpu` or `cuda`.
        room: bytes of vectors.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, device: str = "cpu", *, room: int = ROOM) -> None:
        try:
            self._device = torch.empty(1, device=device).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"vectors cannot be held on device {device!r}: {error}") from error
        self._room, self._tick = room, 0
        self._slabs: WeakKeyDictionary[object, dict[int, _Slab]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes of vectors that are held now."""
        with self._lock:
            return self._size()

    def hold(self, owner: object, number: int, start: int, vectors: NDArray[np.float32]) -> bool:
        if not 0 < vectors.nbytes <= self._room:
            return False
        with self._lock:
            self._slabs.setdefault(owner, {}).pop(number, None)
            while self._size() + vectors.nbytes > self._room:
                self._evict()
            self._tick += 1
            try:
                moved = torch.tensor(vectors, device=self._device)  # a copy: what was given may change
            except torch.OutOfMemoryError:  # others use the device, too
                return False
            self._slabs[owner][number] = _Slab(start, moved, self._tick)
            return True

    def held(self, owner: object) -> frozenset[int]:
        with self._lock:
            return frozenset(self._slabs.get(owner, ()))

    def search(
        self,
        owner: object,
        queries: NDArray[np.float32],
        k: int,
        lists: Sequence[NDArray[np.int64]],
        allowed: NDArray[np.bool_] | None,
    ) -> list[Held]:
        slabs = self._of_use(owner, np.unique(np.concatenate(lists)) if lists else np.empty(0, dtype=np.int64))
        there = np.fromiter(slabs, np.int64, len(slabs))
        left = [some[~np.isin(some, there)] for some in lists]
        nothing = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if not slabs or not k:
            return [Held(*nothing, rest) for rest in left]
        try:
            found = list(self._best(slabs, queries, k, self._mask(slabs, lists, allowed)))
        except torch.OutOfMemoryError:
            return [Held(*nothing, some) for some in lists]
        return [Held(rows, scores, rest) for (rows, scores), rest in zip(found, left, strict=True)]

    def drop(self, owner: object) -> None:
        with self._lock:
            self._slabs.pop(owner, None)

    def _of_use(self, owner: object, numbers: NDArray[np.int64]) -> dict[int, _Slab]:
        """Those of the clusters that are held; what is dropped meanwhile stays until the search is done."""
        with self._lock:
            held = self._slabs.get(owner, {})
            self._tick += 1
            found = {number: held[number] for number in numbers.tolist() if number in held}
            for slab in found.values():
                slab.used = self._tick
            return found

    def _mask(
        self, slabs: dict[int, _Slab], lists: Sequence[NDArray[np.int64]], allowed: NDArray[np.bool_] | None
    ) -> Tensor:
        """(queries, rows) what each may find of the rows of all these clusters."""
        sizes = [len(slab.vectors) for slab in slabs.values()]
        numbers = np.fromiter(slabs, np.int64, len(slabs))
        probed = np.stack([np.isin(numbers, some) for some in lists])  # (queries, clusters)
        mask = np.repeat(probed, sizes, axis=1)
        if allowed is not None:
            mask &= allowed[_rows(slabs)]
        return torch.tensor(mask, device=self._device)

    def _best(
        self, slabs: dict[int, _Slab], queries: NDArray[np.float32], k: int, mask: Tensor
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """For each query rows and scores of the best k, and of all that score as the last of them."""
        asked = torch.tensor(queries, device=self._device)
        scores = torch.cat([asked @ slab.vectors.T for slab in slabs.values()], dim=1)  # (queries, rows)
        scores.masked_fill_(~mask, -torch.inf)
        least = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
        kept = ((scores >= least) & mask).cpu().numpy()
        rows, told = _rows(slabs), scores.cpu().numpy()
        for some, line in zip(kept, told, strict=True):
            yield rows[some], line[some]

    def _size(self) -> int:
        return sum(slab.vectors.nbytes for slabs in self._slabs.values() for slab in slabs.values())

    def _evict(self) -> None:
        """Let go of the cluster that was not of use for longest."""
        pairs = [(slab.used, slabs, number) for slabs in self._slabs.values() for number, slab in slabs.items()]
        _, slabs, number = min(pairs, key=lambda pair: pair[0])
        del slabs[number]


def _rows(slabs: dict[int, _Slab]) -> NDArray[np.int64]:
    """The rows of clusters, in their order."""
    return np.concatenate([np.arange(slab.start, slab.start + len(slab.vectors)) for slab in slabs.values()])
