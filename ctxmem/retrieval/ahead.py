"""What is got ready before a search is asked for: the namespace in memory, the question's vector, the disk.

A service calls it at a session's start, while a model rewrites a question, or while an answer is written. It changes no
result: a search that was prepared for finds what it would have found, sooner.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from ctxmem.errors import ModelError, Unavailable
from ctxmem.ports import Embedder
from ctxmem.retrieval.query import LONGEST, Query
from ctxmem.retrieval.shelved import Shelved

MOST = 256
"""Vectors of questions that are kept."""
EXPECT = 0.5
"""Seconds until the search, where the caller does not know."""


class Ahead:
    """Vectors of questions that may be asked. Safe for threads."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, ...]] = OrderedDict()

    def prepare(self, shelved: Shelved, text: str, *, expect: float = EXPECT) -> bool:
        """Load a namespace; with a text, embed it and look ahead from it. Whether all of that could be done.

        Raises:
            StoreError: the database is out of reach.
        """
        shelved.catch_up()
        if self._embedder is None or not text.strip() or len(text) > LONGEST:
            return self._embedder is not None
        try:
            vector = self._embedder.embed([text], query=True)[0]
        except (Unavailable, ModelError):
            return False
        with self._lock:
            self._known[text] = tuple(vector.tolist())
            self._known.move_to_end(text)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        shelved.hybrid.lookahead(vector, expect=expect)
        return True

    def completed(self, query: Query) -> Query:
        """The query with its vector, where that was made ahead."""
        with self._lock:
            vector = self._known.get(query.text)
        known = query.vector is None and query.mode != "words" and vector is not None
        return replace(query, vector=vector) if known else query
