"""The folder of an index: which of its segments is the current one, and nothing of those before it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from ctxmem.errors import StoreError
from ctxmem.retrieval.tiered.build import sync
from ctxmem.retrieval.tiered.erase import overwrite
from ctxmem.retrieval.tiered.segment import Segment, opened

_CURRENT = "current"

_log = logging.getLogger("ctxmem.retrieval")


class Folder:
    """Where an index has its segments; one process at a time opens it.

    Args:
        path: the folder; made with the first segment.
        fingerprint: embedder whose vectors they are.
        dimensions: length of a vector.
    """

    def __init__(self, path: Path, fingerprint: str, dimensions: int) -> None:
        self._path, self._fingerprint, self._dimensions = path, fingerprint, dimensions

    def current(self) -> Segment | None:
        """The current segment, an erasure that was cut off ended; None when there is none that is whole."""
        try:
            name = (self._path / _CURRENT).read_text()
            segment = self.opened(self._path / name)
            self.finish(segment)
        except FileNotFoundError:
            return None
        except StoreError as error:
            _log.warning("the index starts empty: %s", error)
            return None
        return segment

    def new(self) -> Path:
        """A place for a segment."""
        return self._path / f"{time.time_ns():020d}"

    def opened(self, path: Path) -> Segment:
        """The segment in a place.

        Raises:
            StoreError: it is not whole, or another embedder's.
        """
        return opened(path, self._fingerprint, self._dimensions)

    def publish(self, segment: Segment) -> None:
        """Make a segment the current one, for whoever opens the folder next.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        scratch = self._path / f".{_CURRENT}"
        try:
            scratch.write_text(segment.folder.name)
            sync(scratch)
            os.replace(scratch, self._path / _CURRENT)
            sync(self._path)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def finish(self, segment: Segment) -> None:
        """Overwrite what was erased from the current segment, and remove all others; who still reads one has it open.

        Raises:
            StoreError: the disk cannot be written.
        """
        overwrite(segment)
        self._leave(segment.folder.name)

    def clear(self) -> None:
        """Remove all segments."""
        if self._path.exists():
            (self._path / _CURRENT).unlink(missing_ok=True)
            self._leave("")

    def _leave(self, name: str) -> None:
        """Remove all segments but one, and what was left half-written."""
        for other in self._path.iterdir():
            if other.is_dir() and other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        sync(self._path)
