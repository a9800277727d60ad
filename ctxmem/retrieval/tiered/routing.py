"""Searches go to the worker that holds their clusters, where several workers serve copies of one index.

Each worker says in the shared cache which clusters its hot tier holds. That is forgotten after some seconds, so a
worker that died or lost its clusters is soon one like any other. Whoever has searches to give places them by it:

    router = Router(cache, segment, ["one", "two"])
    router.publish("one", index.hot.held(index.segment))                    # in worker `one`, every few seconds
    places = router.place([segment.nearest(vector, 32) for vector in vectors])
    ...
    router.done(places)

After TeleRAG's cache-aware scheduling (arXiv 2502.20969), which places whole batches, by equal quotas. It changes no
result.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput
from ctxmem.ports import Cache
from ctxmem.retrieval.tiered.segment import Segment

TTL = 10.0
"""Seconds that what a worker said is taken to be true."""
AHEAD = 4
"""Searches by which a worker may be busier than the least busy one and still be given more."""


class Router:
    """Safe for threads. Several routers may place for the same workers; each counts its own searches alone.

    Args:
        cache: shared with the workers.
        segment: the index's, of which each worker has a copy. What is said of another one is not heard.
        workers: their names.
        tenant: whose index it is.
        ttl: see `TTL`.
        ahead: see `AHEAD`.

    Raises:
        InvalidInput: no worker, or one twice.
    """

    def __init__(
        self,
        cache: Cache,
        segment: Segment,
        workers: Sequence[str],
        *,
        tenant: str = "default",
        ttl: float = TTL,
        ahead: int = AHEAD,
    ) -> None:
        if not workers or len(set(workers)) != len(workers):
            raise InvalidInput(f"a router needs workers of different names, got {list(workers)}", param="workers")
        self._cache, self._tenant, self._ttl, self._ahead = cache, tenant, ttl, ahead
        self._lists = segment.manifest.lists
        self._mark = sha256(repr(sorted(segment.manifest.sums.items())).encode()).hexdigest()[:32]
        self._busy: Counter[str] = Counter(dict.fromkeys(workers, 0))
        self._lock = threading.Lock()

    def publish(self, worker: str, clusters: Iterable[int]) -> None:
        """Say which clusters a worker holds, for the next seconds; by the worker, or in its name.

        Raises:
            InvalidInput: the index has no such cluster.
        """
        bits = self._bits(clusters)
        self._cache.put(self._tenant, self._key(worker), np.packbits(bits).tobytes(), ttl=self._ttl)

    def place(self, probes: Sequence[NDArray[np.int64]]) -> list[str]:
        """A worker for each search, in their order.

        Those that find most of their clusters held are placed first, each with the worker that holds most of them among
        those that are not too busy; then with the least busy. Searches of like clusters come together, for those of one
        that was placed are taken to be held from then on.

        Args:
            probes: of each search the clusters that it looks into.

        Raises:
            InvalidInput: the index has no such cluster.
        """
        wanted = np.array([self._bits(some.tolist()) for some in probes]).reshape(len(probes), self._lists)
        held = {worker: self._heard(worker) for worker in self._busy}
        overlaps = {worker: wanted @ some.astype(np.int64) for worker, some in held.items()}
        chosen: dict[int, str] = {}
        with self._lock:
            while len(chosen) < len(probes):
                least = min(self._busy.values())
                open_to = [worker for worker, busy in self._busy.items() if busy < least + self._ahead]
                left = [number for number in range(len(probes)) if number not in chosen]
                number, worker = min(
                    ((number, worker) for number in left for worker in open_to),
                    key=lambda pair: (-overlaps[pair[1]][pair[0]], self._busy[pair[1]], pair[0]),
                )
                chosen[number] = worker
                self._busy[worker] += 1
                held[worker] = held[worker] | wanted[number]
                overlaps[worker] = wanted @ held[worker].astype(np.int64)
        return [chosen[number] for number in range(len(probes))]

    def done(self, workers: Iterable[str]) -> None:
        """Searches that were placed with these workers have ended."""
        with self._lock:
            self._busy.subtract(workers)

    def _bits(self, clusters: Iterable[int]) -> NDArray[np.bool_]:
        """(lists,) whether each is among them."""
        bits, numbers = np.zeros(self._lists, dtype=bool), list(clusters)
        if numbers and not 0 <= min(numbers) <= max(numbers) < self._lists:
            raise InvalidInput(f"the index has {self._lists} clusters, got number {max(numbers)}", param="clusters")
        bits[numbers] = True
        return bits

    def _heard(self, worker: str) -> NDArray[np.bool_]:
        """(lists,) what a worker said of late; nothing when that is unknown, too old, or of another index."""
        said = self._cache.get(self._tenant, self._key(worker)) or b""
        if len(said) != -(-self._lists // 8):
            return np.zeros(self._lists, dtype=bool)
        return np.unpackbits(np.frombuffer(said, dtype=np.uint8), count=self._lists).astype(bool)

    def _key(self, worker: str) -> str:
        return f"hot:{self._mark}:{worker}"
