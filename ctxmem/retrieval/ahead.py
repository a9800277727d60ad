"""What is got ready before a search is asked for: the namespace in memory, the question's vector, the disk.

A service calls it at a session's start, while a model rewrites a question, or while an answer is written. It changes no
result: a search that was prepared for finds what it would have found, sooner.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import ModelError, Unavailable
from ctxmem.ports import Embedder
from ctxmem.retrieval.query import LONGEST, Query
from ctxmem.retrieval.shelved import Shelved

Floats = NDArray[np.float32]

MOST = 256
"""Vectors of texts that are kept."""
EXPECT = 0.5
"""Seconds until the search, where the caller does not know."""


class Ahead:
    """Vectors of texts that may be searched for. Safe for threads."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Floats] = OrderedDict()

    def prepare(self, shelved: Shelved, text: str, written: str | None = None, *, expect: float = EXPECT) -> bool:
        """Load a namespace; with a text, embed it and look ahead from it. Whether all of that could be done.

        With what a model has made of the text by now, that is embedded, and the text's lookahead is fed with it.

        Raises:
            StoreError: the database is out of reach.
        """
        shelved.catch_up()
        newest = written or text
        if self._embedder is None or not newest.strip() or len(newest) > LONGEST:
            return self._embedder is not None
        try:
            vector = self._embedder.embed([newest], query=True)[0]
        except (Unavailable, ModelError):
            return False
        with self._lock:
            self._known[newest] = vector
            self._known.move_to_end(newest)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        shelved.look_ahead(text, vector, expect=expect, written=written)
        return True

    def vectors(self, query: Query) -> dict[str, Floats]:
        """By text, (dimensions,) vectors of what a query asks for: its own, and those that were made ahead."""
        with self._lock:
            made = {text: self._known[text] for text in (query.text, *query.also) if text in self._known}
        return made if query.vector is None else {**made, query.text: np.asarray(query.vector, dtype=np.float32)}
