"""A reranker that is loaded by its first use. Importing this loads no torch beyond what the package needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctxmem.lm.rerank.reranker import Ranking, Reranker
    from ctxmem.ports import Cache


def shipped(cache_dir: Path | None = None, cache: Cache | None = None) -> LateReranker:
    """The shipped reranker; `cache_dir` is where converted models are kept, `cache` where scores are."""

    def load() -> Reranker:
        from ctxmem.lm.rerank.reranker import Reranker

        return Reranker.load(cache=cache, cache_dir=cache_dir)

    return LateReranker(load)


class LateReranker:
    """Stands for a reranker until somebody asks it. Safe for threads. Implements `ctxmem.ports.Remembering`.

    Args:
        load: makes the reranker, once.
    """

    def __init__(self, load: Callable[[], Reranker]) -> None:
        self._load = load
        self._lock = threading.Lock()

    @property
    def loaded(self) -> Reranker:
        """The reranker itself.

        Raises:
            ModelError: it is missing or broken.
        """
        with self._lock:
            return self._loaded

    @property
    def remembered(self) -> int:
        """Texts whose scores came from the cache."""
        with self._lock:
            return self._loaded.remembered if "_loaded" in vars(self) else 0

    def of(self, tenant: str) -> LateReranker:
        """The same for a tenant; loaded by the first use of any."""
        return LateReranker(lambda: self.loaded.of(tenant))

    @property
    def name(self) -> str:
        """Fingerprint of the model."""
        return self.loaded.name

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """As the reranker's own."""
        return self.loaded.score(query, texts, deadline=deadline)

    def rank(self, query: str, texts: Sequence[str], *, k: int | None = None, deadline: float | None = None) -> Ranking:
        """As the reranker's own."""
        return self.loaded.rank(query, texts, k=k, deadline=deadline)

    @cached_property
    def _loaded(self) -> Reranker:
        return self._load()
