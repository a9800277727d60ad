"""A cache in this process, for one process alone."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ctxmem.ports import Cache

ROOM = 16 * 2**20
"""Bytes of keys and values kept unless the caller says otherwise."""

_Key = tuple[str, str]


class MemoryCache(Cache):
    """Forgets what was not used for longest when its room is full. Safe for threads."""

    def __init__(self, room: int = ROOM, *, clock: Callable[[], float] = time.monotonic) -> None:
        """An empty cache.

        Args:
            room: bytes of keys and values that it keeps at most.
            clock: seconds, never going back.
        """
        self._room = room
        self._clock = clock
        self._kept: OrderedDict[_Key, tuple[bytes, float]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, tenant: str, key: str) -> bytes | None:
        with self._lock:
            found = self._kept.get((tenant, key))
            if found is None:
                return None
            value, until = found
            if self._clock() >= until:
                self._forget((tenant, key))
                return None
            self._kept.move_to_end((tenant, key))
            return value

    def put(self, tenant: str, key: str, value: bytes, *, ttl: float) -> None:
        name = (tenant, key)
        with self._lock:
            self._forget(name)
            size = _size(name, value)
            if ttl <= 0 or size > self._room:
                return
            self._kept[name] = value, self._clock() + ttl
            self._size += size
            while self._size > self._room:
                self._forget(next(iter(self._kept)))

    def drop(self, tenant: str, keys: Sequence[str]) -> int:
        with self._lock:
            return sum(self._forget((tenant, key)) for key in keys)

    def clear(self, tenant: str) -> int:
        with self._lock:
            return sum(self._forget(name) for name in [name for name in self._kept if name[0] == tenant])

    def _forget(self, name: _Key) -> bool:
        """Whether it was there."""
        found = self._kept.pop(name, None)
        if found is None:
            return False
        self._size -= _size(name, found[0])
        return True


def _size(name: _Key, value: bytes) -> int:
    return sum(map(len, name)) + len(value)
