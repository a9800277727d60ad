"""Indexes on disk for a library, a folder for each namespace.

    Library(store.documents, embedder, indexes=OnDisk(data / "vectors"))

A namespace lies in memory until it is large; then most of it lies on disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctxmem.ports import Embedder, HotTier
from ctxmem.retrieval.tiered import KEPT

if TYPE_CHECKING:
    from ctxmem.retrieval.tiered.index import TieredIndex

PROBED = 64
"""Clusters that a search looks into: of 50,000 vectors, one in fourteen."""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Makes a library's indexes; one process at a time may have the folder.

    Attributes:
        root: the folder; tenants and namespaces have theirs in it, named by hashes.
        kept: vectors of a namespace up to which it stays in memory.
        probed: clusters that a search looks into.
        hot: where clusters that lookahead brings in are held and scored, for all namespaces together.
    """

    root: Path
    kept: int = KEPT
    probed: int = PROBED
    hot: HotTier | None = None

    def __call__(self, tenant: str, namespace: str, embedder: Embedder) -> TieredIndex:
        """The index of a namespace; empty, whatever is on disk: each vector is there once it is added again."""
        from ctxmem.retrieval.tiered.index import TieredIndex  # faiss is loaded with the first namespace

        folder = self.folder(tenant, namespace)
        options = {"probed": self.probed, "kept": self.kept}
        made = TieredIndex(folder, embedder.name, embedder.dimensions, trusted=False, **options)
        made.hot = self.hot
        return made

    def folder(self, tenant: str, namespace: str) -> Path:
        """Where a namespace's vectors are, once there are enough of them."""
        return self.root / _hashed(tenant) / _hashed(namespace)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
