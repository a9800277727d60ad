"""A lock that many may hold to read, or one to write: searches do not wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Sharing:
    """A writer who waits comes before readers who come later. Not to be taken twice by one thread."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._readers, self._writers = 0, 0  # who reads; who writes or waits to
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold it with others who read."""
        with self._turn:
            self._turn.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._turn:
                self._readers -= 1
                self._turn.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold it alone."""
        with self._turn:
            self._writers += 1
            self._turn.wait_for(lambda: not self._readers and not self._writing)
            self._writing = True
        try:
            yield
        finally:
            with self._turn:
                self._writers, self._writing = self._writers - 1, False
                self._turn.notify_all()
