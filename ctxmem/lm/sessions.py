"""Key/value caches of recent chats, so that a turn prefills only what is new.

A kept cache is never written to: reading copies the part that still holds, so a generation that fails or is cut off
leaves it as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class Past:
    """What a prompt is read after, such as a compressed memory.

    Attributes:
        name: equal names mean equal caches; the empty one is that of the start.
        cache: to go on from; it is used up.
    """

    name: str
    cache: DynamicCache


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a model has computed for some tokens.

    Attributes:
        ids: the tokens.
        behind: name of the past they were read after.
        layers: per layer keys and values, each (1, kv heads, past and len(ids), head size).
    """

    ids: tuple[int, ...]
    behind: str
    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, ids: Sequence[int], cache: DynamicCache, behind: str) -> Snapshot:
        """Name the tensors of a cache that has read a past and then `ids`.

        They are shared, not copied: a `DynamicCache` grows by making new tensors.
        """
        return cls(tuple(ids), behind, tuple((keys, values) for keys, values, _ in cache))

    @property
    def nbytes(self) -> int:
        """Memory the tensors hold."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def prefix(self, length: int) -> DynamicCache:
        """A new cache that has read the past and the first `length` tokens."""
        end = self.layers[0][0].shape[2] - len(self.ids) + length
        return DynamicCache([(keys[..., :end, :], values[..., :end, :]) for keys, values in self.layers])


class Sessions:
    """The snapshots of the chats used last, bounded by bytes. For one thread."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Snapshot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory held by all snapshots."""
        return sum(snapshot.nbytes for snapshot in self._kept.values())

    def read(self, session: str, ids: Sequence[int], *, behind: str, block: int = 1) -> tuple[DynamicCache, int] | None:
        """A cache of the longest kept prefix of `ids`, in whole blocks, that leaves a token to read; and its length.

        None where nothing is kept that was read after the same past.
        """
        snapshot = self._kept.get(session)
        if snapshot is None or snapshot.behind != behind:
            return None
        length = min(common_prefix(snapshot.ids, ids), len(ids) - 1) // block * block
        if length <= 0:
            return None
        self._kept.move_to_end(session)
        return snapshot.prefix(length), length

    def keep(self, session: str, snapshot: Snapshot) -> None:
        """Remember a session's newest snapshot and forget the oldest ones beyond the bound."""
        self._kept[session] = snapshot
        self._kept.move_to_end(session)
        while self._kept and self.nbytes > self._max_bytes:
            self._kept.popitem(last=False)

    def forget(self, session: str) -> None:
        """Drop a session's snapshot, if there is one."""
        self._kept.pop(session, None)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading items are equal.

    >>> common_prefix((1, 2, 3), (1, 2, 4, 5))
    2
    """
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
