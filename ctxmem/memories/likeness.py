"""How alike a query and texts are in meaning: by an embedder in this process, or by whoever answers the same call."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from ctxmem.ports import Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Likeness = Callable[[str, Sequence[str]], Sequence[float]]
"""Takes a query and texts, gives the cosine of each with it; raises `Unavailable` when it cannot say now."""

ROOM = 50_000
"""Vectors that are remembered."""


class Embedded:
    """Likeness by an `Embedder`; what was embedded once is remembered. Safe for threads."""

    def __init__(self, embedder: Embedder, *, room: int = ROOM) -> None:
        """Nothing remembered yet.

        Args:
            embedder: makes the vectors.
            room: vectors that are remembered; those not used for longest go first.
        """
        self._embedder = embedder
        self._room = room
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, query: str, texts: Sequence[str]) -> list[float]:
        """The cosine of each text with the query."""
        if not texts:
            return []
        asked = self._embedder.embed([query], query=True)[0]
        return [float(asked @ vector) for vector in self._vectors(texts)]

    def _vectors(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        names = [blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in texts]
        with self._lock:
            known = {name: self._kept[name] for name in names if name in self._kept}
            for name in known:
                self._kept.move_to_end(name)
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
        if new:
            known |= dict(zip(new, self._embedder.embed(list(new.values())), strict=True))
            with self._lock:
                self._kept.update((name, known[name]) for name in new)
                while len(self._kept) > self._room:
                    self._kept.popitem(last=False)
        return [known[name] for name in names]
