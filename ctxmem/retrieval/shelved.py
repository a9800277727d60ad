"""A namespace in memory: what a search needs of it, kept up to date with SQL by comparing versions.

It may be lost at any time. Before each search the namespace's version is read; when it has moved, what is gone is taken
out and what is new is loaded, so a search sees every write that was acknowledged before it began.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import nullcontext
from hashlib import sha256
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ctxmem.document import Chunk, Filter, Shelf
from ctxmem.errors import StoreError, Unavailable
from ctxmem.ports import DocumentStore, Embedder, Index
from ctxmem.ports.index import Ticket
from ctxmem.retrieval.hybrid import Hybrid

_AT_ONCE = 4096  # chunks loaded in one go

_log = logging.getLogger("ctxmem.retrieval")


class Shelved:
    """One tenant's namespace, searchable. Safe for threads."""

    def __init__(
        self,
        store: DocumentStore,
        tenant: str,
        namespace: str,
        *,
        embedder: Embedder | None,
        dense: float,
        index: Index | None = None,
    ) -> None:
        self._store = store
        self._tenant, self._namespace = tenant, namespace
        self._embedder = embedder
        self._outline: dict[str, tuple[str, str]] = {}
        self._version = 0
        self._digest = -1, ""
        self._lock = threading.Lock()
        self._feeding = threading.Lock()
        self._writing = threading.Lock()  # to the disk; searches do not wait for it
        self._closed = False
        self._tickets: WeakValueDictionary[str, Ticket] = WeakValueDictionary()  # by question; a search ends its own
        self.hybrid = Hybrid(embedder, dense=dense, index=index)

    def catch_up(self) -> Shelf:
        """Bring this up to date; returns the namespace's head.

        Raises:
            StoreError: the database is out of reach.
        """
        with self._lock:
            shelf = self._store.shelf(self._tenant, self._namespace) or Shelf(self._namespace)
            if shelf.version != self._version:
                self._load(self._store.outline(self._tenant, self._namespace), shelf)
                self._tend(first=self._version == 0)
                self._version = shelf.version
            self._repair(shelf)
            return shelf

    def mark(self) -> str:
        """Hash of what decides about a search beside its query: what is in here, by which models, how it is searched.

        The version alone would not do: it begins anew in another database, or goes back with one that was restored.
        """
        with self._lock:
            if self._digest[0] != self._version:
                rows = sorted(f"{id} {document!r} {made!r}" for id, (document, made) in self._outline.items())
                self._digest = self._version, sha256("\n".join(rows).encode()).hexdigest()
            model = self._embedder.name if self._embedder else ""
            kept = self.hybrid.keeping
            how = self.hybrid.weight, bool(kept and kept.approximate)
            return repr((*self._digest, model, *how))

    def forgo(self, text: str) -> None:
        """No search comes that a lookahead for this question is under way for."""
        with self._feeding:
            ticket = self._tickets.get(text)
        if ticket is not None:
            ticket.cancel()

    def look_ahead(self, text: str, vector: NDArray[np.float32], *, expect: float, written: str | None) -> None:
        """Get ready for a search near a (dimensions,) vector.

        Args:
            text: the question.
            vector: its own, or that of what has been made of it by now.
            expect: seconds until the search.
            written: what that is, by which the lookahead under way for the question is fed, or another begins; empty
                while there is nothing, None where nothing will come.
        """
        with self._feeding:
            under_way = self._tickets.get(text) if written else None
            if under_way is not None and not under_way.ended:
                under_way.feed(vector)
                return
            ticket = self.hybrid.lookahead(vector, expect=expect, growing=written is not None)
            if ticket is not None:
                self._tickets[text] = ticket

    def erase(self) -> int:
        """Take off the disk what is not in SQL any more; returns how many vectors those were.

        Raises:
            StoreError: the database is out of reach, or the disk cannot be written.
            Unavailable: this was closed meanwhile.
        """
        self.catch_up()
        with self._writing:
            if self._closed:
                raise Unavailable(f"namespace {self._namespace!r} was just put out of memory: try again")
            kept = self.hybrid.keeping
            return kept.erase() if kept else 0

    def close(self) -> None:
        """Write nothing to the disk any more, after what is under way: its folder may be opened by another."""
        with self._writing:
            self._closed = True
            if self.hybrid.keeping is not None:
                self.hybrid.keeping.close()

    def among(self, wanted: Filter) -> Collection[str] | None:
        """Ids of the chunks that pass the filter; None for all."""
        if wanted.empty:
            return None
        documents = self._store.matching(self._tenant, self._namespace, wanted)
        return {id for id, (document, _) in self._outline.items() if document in documents}

    def covered(self, among: Collection[str] | None) -> float:
        """Share of the chunks that have a vector."""
        fingerprint = self._embedder.name if self._embedder else ""
        ids = self._outline if among is None else among
        with_vector = sum(self._outline[id][1] == fingerprint for id in ids if id in self._outline)
        return with_vector / len(ids) if ids else 1.0

    def _load(self, outline: dict[str, tuple[str, str]], shelf: Shelf) -> None:
        self.hybrid.remove([id for id in self._outline if id not in outline])
        new = [id for id, (_, fingerprint) in outline.items() if self._outline.get(id, ("", None))[1] != fingerprint]
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            self._add(self._store.chunks(self._tenant, self._namespace, some), shelf.fingerprint)
        self._outline = outline

    def _tend(self, *, first: bool) -> None:
        """Have what is much written to the disk, behind the searches. At first erase what SQL has not."""
        kept = self.hybrid.keeping
        if kept is None:
            return
        with self._writing if first else nullcontext():
            if self._closed:
                return
            try:
                if first:
                    kept.erase()
            except StoreError as error:
                _log.warning("vectors of namespace %r cannot be erased: %s", self._namespace, error)
            kept.tend()

    def _repair(self, shelf: Shelf) -> None:
        """Take in anew from SQL what was found damaged on the disk."""
        damaged = self.hybrid.keeping.damaged if self.hybrid.keeping else []
        if damaged:
            _log.warning("%d vectors of namespace %r were damaged and are read anew", len(damaged), self._namespace)
            self._add(self._store.chunks(self._tenant, self._namespace, damaged), shelf.fingerprint)

    def _add(self, chunks: list[Chunk], fingerprint: str) -> None:
        """Put chunks in, those with a vector of our embedder under it."""
        texts = {chunk.id: chunk.searched for chunk in chunks}
        packed: dict[str, bytes] = {}
        if self._embedder is not None and fingerprint == self._embedder.name:
            packed = self._store.vectors(self._tenant, self._namespace, list(texts), fingerprint)
            self.hybrid.add({id: texts[id] for id in packed}, self._unpacked(packed))
        self.hybrid.add_words({id: text for id, text in texts.items() if id not in packed})

    def _unpacked(self, packed: dict[str, bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        size = 4 * (self._embedder.dimensions if self._embedder else 0)
        damaged = [id for id, vector in packed.items() if len(vector) != size]
        if damaged:
            raise StoreError(f"the vector of chunk {damaged[0]} is damaged: re-embed namespace {self._namespace!r}")
        return np.frombuffer(b"".join(packed.values()), dtype="<f4").reshape(len(packed), size // 4)
