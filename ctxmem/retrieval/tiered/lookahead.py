"""Lookahead: the clusters that a search will read are brought in while a model still writes its query.

A ticket is taken for what is known (the question), fed with what becomes known (the words written so far), and used by
the search itself. Reading ahead is the lowest of all work: it is queued cluster by cluster, never more than the time
that is left allows at the disk's speed, dropped when the ticket is cancelled, and given up where it has been of no use.
What is brought in lies in the system's page cache, so that it costs no memory of this process and changes no result.

Source: TeleRAG, arXiv 2502.20969, which copies clusters to a GPU by a fixed budget and one anchor.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress

import numpy as np

from ctxmem.errors import StoreError
from ctxmem.ports import HotTier
from ctxmem.ports.index import checked
from ctxmem.retrieval.tiered.codes import Floats
from ctxmem.retrieval.tiered.hot import brought_up
from ctxmem.retrieval.tiered.segment import Segment

_SETTLED = ((0.9, 1.25), (0.85, 1.0), (0.75, 0.75), (-np.inf, 0.5))
"""By the least cosine with the vector before, the clusters that a vector brings in, as a share of a search's: a text
that turns with every word is not worth all of them, one that has settled is worth some more. Chosen on drafts for NQ
and HotpotQA and on sentences of SQuAD, see `bench/RESULTS.md`."""
_AT_ONCE = 1 << 20  # bytes read at a time, after which a cancelled ticket is noticed
_FIRST_SPEED = 200e6  # bytes a second, until one is measured
_REMEMBERED = 50  # tickets that the gate looks back on
_OF_USE = 0.2
_PROBE = 20  # of so many gated tickets one is served, to see whether things have changed


class Gate:
    """Whether lookahead is worth it: the share of fetched bytes that searches then read. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._past: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._turned_away = 0

    @property
    def useful(self) -> float:
        """Useful bytes over fetched ones; 1 before anything was fetched."""
        with self._lock:
            fetched = sum(one for one, _ in self._past)
            return sum(other for _, other in self._past) / fetched if fetched else 1.0

    def open(self) -> bool:
        """Whether the next ticket is served."""
        if len(self._past) < _REMEMBERED or self.useful >= _OF_USE:
            return True
        with self._lock:
            self._turned_away += 1
            return self._turned_away % _PROBE == 0

    def told(self, fetched: int, useful: int) -> None:
        """Count a ticket that has ended."""
        if fetched:
            with self._lock:
                self._past.append((fetched, useful))


class Ticket:
    """A lookahead under way. Use it in a `with` block, or end it by a search or `cancel`. Safe for threads.

    Attributes:
        fetched: clusters brought in, by number with their bytes.
    """

    def __init__(self, loader: Loader, segment: Segment | None, *, lists: int, budget: int) -> None:
        self._loader, self._segment = loader, segment
        self._lists, self._left = lists, budget
        self._before: Floats | None = None
        self._asked: set[int] = set()
        self._lock = threading.Lock()
        self._ended = segment is None
        self.fetched: dict[int, int] = {}

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @property
    def ended(self) -> bool:
        """Whether nothing more is brought in for it."""
        return self._ended

    @property
    def bytes(self) -> int:
        """Bytes brought in so far."""
        return sum(tuple(self.fetched.values()))  # taken at once: the loader may add to it

    def feed(self, vector: Floats) -> int:
        """Look ahead from here, too: the vector of what is written by now. Returns how many clusters were added.

        The more it is like the one before, the more clusters are looked at.

        Raises:
            InvalidInput: another dimension, or a value that is not finite.
        """
        if self._segment is None or self._ended:
            return 0
        [row] = checked(np.asarray(vector)[None], self._segment.manifest.dimensions)
        likeness = 1.0 if self._before is None else _cosine(row, self._before)
        share = next(share for least, share in _SETTLED if likeness >= least)
        return self.bring(row, math.ceil(share * self._lists))

    def bring(self, vector: Floats, lists: int) -> int:
        """Bring in so many clusters around a (dimensions,) vector; returns how many were not asked for before."""
        segment, added, self._before = self._segment, 0, vector
        if segment is None:
            return 0
        for number in segment.nearest(vector, lists).tolist():
            offset, length = segment.span(number)
            with self._lock:
                if number in self._asked or length > self._left:
                    continue
                self._asked.add(number)
                self._left -= length
            self._loader.put(self, segment, number, (offset, length), rank=added)
            added += 1
        return added

    def brought(self, segment: Segment) -> list[int]:
        """The clusters of a segment that were brought in; none of another one than the ticket is for."""
        return list(self.fetched) if segment is self._segment else []

    def used(self, segment: Segment, lists: Collection[int]) -> None:
        """End it with the clusters of a segment that were looked into."""
        self._end(sum(self.fetched[number] for number in self.brought(segment) if number in lists))

    def cancel(self) -> None:
        """End it; what is queued for it is not read."""
        self._end(0)

    def wait(self, timeout: float) -> bool:
        """Wait until all that was asked for is there; False when that takes longer. For tests and benches."""
        end = time.monotonic() + timeout
        while not self._ended and len(self.fetched) < len(self._asked):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def _end(self, useful: int) -> None:
        with self._lock:
            ended, self._ended = self._ended, True
        if not ended:
            self._loader.gate.told(self.bytes, useful)


class Loader:
    """Reads ahead in one thread, which starts with the first ticket and anew after a fork."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.speed = _FIRST_SPEED
        self.hot: HotTier | None = None
        self._queue: queue.PriorityQueue[tuple[int, int, Ticket, Segment, tuple[int, int, int]]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._closed = False

    def ticket(self, segment: Segment | None, vector: Floats, *, expect: float, first: int, lists: int) -> Ticket:
        """A ticket for a search that is `expect` seconds away; ended where nothing is to be read, or it is no use.

        Args:
            segment: where.
            vector: what is known.
            expect: seconds.
            first: clusters to bring in for that.
            lists: clusters that the search will look into.
        """
        served = segment is not None and not self._closed and self.gate.open()
        budget = int(min(self.speed * max(0.0, expect), sys.maxsize))
        ticket = Ticket(self, segment if served else None, lists=lists, budget=budget)
        ticket.bring(vector, first)
        return ticket

    def put(self, ticket: Ticket, segment: Segment, number: int, span: tuple[int, int], *, rank: int) -> None:
        """Queue a cluster; those that rank first for their ticket come first, whatever ticket it is."""
        self._queue.put((rank, next(self._order), ticket, segment, (number, *span)))
        with self._lock:
            if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._work, name="lookahead", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True

    def _work(self) -> None:
        while not self._closed:
            try:
                _, _, ticket, segment, (number, offset, length) = self._queue.get(timeout=5)
            except queue.Empty:
                return
            if not ticket.ended:
                self._bring(ticket, segment, number, (offset, length))

    def _bring(self, ticket: Ticket, segment: Segment, number: int, span: tuple[int, int]) -> None:
        offset, length = span
        began, done = time.monotonic(), 0
        while done < length and not ticket.ended:
            try:
                got = segment.touch(offset + done, min(_AT_ONCE, length - done))
            except StoreError:
                return  # a search that needs it says so
            if not got:
                return
            done += got
        took = time.monotonic() - began
        if done >= length:
            if self.hot is not None:
                with suppress(StoreError):  # a search that needs it says so
                    brought_up(segment, number, self.hot)
            ticket.fetched[number] = length
            self.speed = max(0.98 * self.speed, length / took if took else 0.0)  # the best seen of late, not the mean


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0
