"""Writing segments while searches and changes go on: compaction and erasure, one at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from ctxmem.errors import StoreError
from ctxmem.retrieval.tiered.build import Progress, build
from ctxmem.retrieval.tiered.erase import blanked
from ctxmem.retrieval.tiered.folder import Folder
from ctxmem.retrieval.tiered.held import Held

REWRITTEN = 50_000
"""Vectors of a segment up to which erasing writes it anew; in a larger one they are overwritten."""

_log = logging.getLogger("ctxmem.retrieval")


class Upkeep:
    """Keeps the segment of an index. Safe for threads.

    Args:
        folder: where it is.
        held: what the index holds.
        fingerprint: embedder whose vectors they are.
    """

    def __init__(self, folder: Folder, held: Held, fingerprint: str) -> None:
        self._folder, self._held, self._fingerprint = folder, held, fingerprint
        self._alone = threading.Lock()  # each keeps account of what changes meanwhile
        self._behind: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def compact_behind(self) -> None:
        """Compact in another thread, unless that is going on; a disk that is full leaves things as they are."""
        with self._starting:
            if not self._closed and (self._behind is None or not self._behind.is_alive()):
                self._behind = threading.Thread(target=self._try, name="compaction")
                self._behind.start()

    def wait(self) -> None:
        """Wait until no compaction goes on behind."""
        if self._behind is not None:
            self._behind.join()

    def close(self) -> None:
        """Give up a compaction behind, and begin no other."""
        with self._starting:
            self._closed = True
        self.wait()

    def compact(self, lists: int | None, progress: Progress | None) -> None:
        """Write a segment of all there is; see `TieredIndex.compact`."""
        with self._alone:
            self._rewrite(lists, progress)

    def erase(self, ids: Collection[str] | None) -> int:
        """Take vectors off the disk; see `TieredIndex.erase`."""
        with self._alone:
            rows = self._held.condemn(ids)
            if self._held.now is None:
                self._folder.clear()
            elif rows and not self._rewritten():
                self._blank(rows)
            return len(rows)

    def _try(self) -> None:
        try:
            self.compact(None, self._go_on)
        except StoreError as error:
            _log.warning("vectors stay in memory: %s", error)

    def _go_on(self, stage: str, share: float) -> None:
        if self._closed:
            raise StoreError(f"the index was closed at stage {stage!r} of its compaction, {share:.0%} done")

    def _rewrite(self, lists: int | None, progress: Progress | None) -> None:
        ids, vectors = self._held.begin()
        try:
            if not ids:
                return self._folder.clear()
            place = self._folder.new()
            build(place, ids, vectors, fingerprint=self._fingerprint, lists=lists, progress=progress)
            made = self._folder.opened(place)
            self._folder.publish(made)
            self._held.swap(made)
        finally:
            self._held.end()
        return self._folder.finish(made)

    def _rewritten(self) -> bool:
        """Have a small segment written anew: the ranges of its codes may be the values of few vectors."""
        now = self._held.now
        if now is None or len(now.segment) > REWRITTEN:
            return False
        try:
            self._rewrite(now.segment.manifest.lists, None)
        except StoreError as error:  # a damaged vector must not keep others on the disk
            _log.warning("erased vectors are overwritten where they are: %s", error)
            return False
        return True

    def _blank(self, rows: list[int]) -> None:
        now = self._held.now
        if now is None:
            return
        place = self._folder.new()
        blanked(now.segment, rows, place)
        made = self._folder.opened(place)
        made.damaged.update(now.segment.damaged - now.segment.gone)
        self._folder.publish(made)
        self._held.replace(made)
        self._folder.finish(made)
