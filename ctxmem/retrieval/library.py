"""Documents that can be searched: ingest, update, delete, re-embed, search.

    from ctxmem.retrieval.library import Library, Query, Source

    library = Library(store.documents, embedder_named())
    library.ingest("tenant", "handbook", [Source(path.read_bytes(), name=path.name)])
    library.search("tenant", Query("how do I reset my key?", "handbook")).found

The truth is in SQL. A document is there, and found by its words, as soon as it is written; its vectors follow in
batches, each durable by itself, so that embedding goes on where it was stopped, and nothing is embedded twice.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ctxmem.document import Document, Filter
from ctxmem.errors import Conflict, InvalidInput
from ctxmem.job import Job, job
from ctxmem.ports import Cache, DocumentStore, Embedder, Index, Reranker
from ctxmem.ports.index import paired
from ctxmem.retrieval.ahead import EXPECT, Ahead
from ctxmem.retrieval.fuse import DENSE
from ctxmem.retrieval.kept import KeptPlaces
from ctxmem.retrieval.query import Found, Query, Results
from ctxmem.retrieval.search import Searching
from ctxmem.retrieval.shelved import Shelved
from ctxmem.retrieval.source import Source, checked

__all__ = ["Filter", "Found", "Ingested", "Library", "Query", "Results", "Source"]

BATCH = 64
"""Chunks embedded and written at a time."""
WRITE = 32
"""Documents in one transaction."""
MOST_HELD = 32
"""Namespaces held in memory."""
_LONGEST_NAME = 256
EMBED = "embed"
"""Kind of the job that embeds what waits; its payload names the namespace."""

Progress = Callable[[int, int], None]
"""Takes what is done and what there is to do."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did.

    Attributes:
        ids: of all documents, in order.
        written: documents that were new or had changed.
        chunks: chunks of those.
        embedded: vectors that were made.
        job_id: the job that embeds them; None when all is done.
    """

    ids: tuple[str, ...]
    written: int = 0
    chunks: int = 0
    embedded: int = 0
    job_id: str | None = None


class Library:
    """Documents of all tenants. Safe for threads; several processes may share the database.

    Args:
        store: the truth.
        embedder: makes the vectors; None searches by words alone.
        reranker: reads the best candidates again; None when there is none.
        dense: weight of the vectors against the words.
        indexes: makes the index of a namespace, given tenant, namespace and embedder; a flat one by default.
        cache: where it is kept what was found where, for those who ask the same again; nowhere by default.
    """

    def __init__(
        self,
        store: DocumentStore,
        embedder: Embedder | None,
        reranker: Reranker | None = None,
        *,
        dense: float = DENSE,
        indexes: Callable[[str, str, Embedder], Index] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.store = store
        self.embedder = embedder
        self._reranker = reranker
        self._dense = dense
        self._indexes = indexes
        self._held: OrderedDict[tuple[str, str], Shelved] = OrderedDict()
        self._lock = threading.Lock()
        self._ahead = Ahead(embedder)
        self._kept = KeptPlaces(cache)

    def ingest(
        self,
        tenant: str,
        namespace: str,
        sources: Sequence[Source],
        *,
        later: bool = False,
        progress: Progress | None = None,
    ) -> Ingested:
        """Put documents in, each in the place of the one with its id; those that did not change cost nothing.

        All are read before the first is written. On return the documents are durable and are found by their words.

        Args:
            tenant: whose they are.
            namespace: the collection.
            sources: the documents.
            later: leave their vectors to a job, written down with them.
            progress: called as vectors are made.

        Raises:
            InvalidInput: a document cannot be read, or two have one id; nothing is written.
            Conflict: the namespace holds another embedder's vectors; nothing is written.
            Unavailable: the embedder is out of reach; the documents are there, `embed` makes their vectors.
        """
        checked_namespace(namespace)
        checked(sources)
        self._own(tenant, namespace)
        known = self.store.documents(tenant, namespace, [source.key for source in sources])
        new = [source for source in sources if _differs(source, known.get(source.key))]
        made = [source.read(namespace) for source in new]
        jobs = [job(EMBED, {"namespace": namespace})] if later and made and self.embedder is not None else []
        for start in range(0, len(made), WRITE):
            last = start + WRITE >= len(made)
            self.store.put(tenant, made[start : start + WRITE], jobs=jobs if last else ()).result()
        embedded = 0 if later else self.embed(tenant, namespace, progress=progress)
        ids = tuple(source.key for source in sources)
        return Ingested(ids, len(made), sum(len(chunks) for _, chunks in made), embedded, _id(jobs))

    def embed(self, tenant: str, namespace: str, *, progress: Progress | None = None) -> int:
        """Make the vectors that are missing; returns how many. Stopped at any point, it goes on from there.

        Raises:
            Conflict: the namespace belongs to another embedder.
            Unavailable: the embedder is out of reach.
        """
        if self.embedder is None:
            return 0
        done, name = 0, self.embedder.name
        self._own(tenant, namespace)
        for texts in self._waiting(tenant, namespace):
            packed = self._packed(texts)
            self.store.put_vectors(tenant, namespace, name, packed).result()
            done += len(packed)
            if progress is not None:
                progress(done, done + self._left(tenant, namespace))
        return done

    def reembed(self, tenant: str, namespace: str, *, progress: Progress | None = None) -> int:
        """Give a namespace to this library's embedder and make its vectors anew; returns how many.

        Until it is done, what has no new vector yet is found by its words.
        """
        if self.embedder is None:
            raise InvalidInput("this library has no embedder", param="embedder")
        self.store.claim(tenant, namespace, self.embedder.name, replace=True).result()
        return self.embed(tenant, namespace, progress=progress)

    def delete(self, tenant: str, namespace: str, document_ids: Sequence[str]) -> int:
        """Delete documents with their chunks and vectors, on the disk too; returns how many were there."""
        count = self.store.delete(tenant, namespace, list(dict.fromkeys(document_ids))).result()
        if count:
            self.forget(tenant, namespace)
        return count

    def forget(self, tenant: str, namespace: str) -> int:
        """Take vectors of what was deleted or erased off the disk, by whomever; returns how many those were.

        Raises:
            StoreError: the database is out of reach, or the disk cannot be written.
        """
        return self._shelved(tenant, namespace).erase() if self._indexes else 0

    def search(self, tenant: str, query: Query) -> Results:
        """Find chunks; sees every write acknowledged before it began.

        Raises:
            Conflict: the namespace holds another embedder's vectors, and the mode is not `words`.
            StoreError: the database is out of reach.
        """
        started = time.monotonic()
        shelved = self._shelved(tenant, query.namespace)
        shelf = shelved.catch_up()
        if query.mode != "words":
            self._refuse_other(query.namespace, shelf.fingerprint)
        known = self._ahead.vectors(query)
        searching = Searching(self.store, tenant, query, shelved, self._reranker, known)
        return searching.results(self._kept.of(tenant, searching.name, searching.places), started)

    def prefetch(
        self, tenant: str, namespace: str, text: str = "", written: str | None = None, *, expect: float = EXPECT
    ) -> bool:
        """Get ready for a search that is about to come; see `ctxmem.retrieval.ahead`.

        Args:
            tenant: whose documents.
            namespace: the collection.
            text: what will be asked, or what is known of it; empty to load the namespace alone.
            written: what a model has made of that text by now, from which it is looked ahead, too; empty while that is
                nothing, None where no model rewrites it.
            expect: seconds until the search.

        Raises:
            InvalidInput: no name of a namespace.
            StoreError: the database is out of reach.
        """
        checked_namespace(namespace)
        return self._ahead.prepare(self._shelved(tenant, namespace), text, written, expect=expect)

    def close(self) -> None:
        """Write nothing to the disk any more; returns when nothing is being written. Searches may go on."""
        with self._lock:
            for shelved in self._held.values():
                shelved.close()

    def _own(self, tenant: str, namespace: str) -> None:
        """Give the namespace to this embedder unless it has another, which is refused."""
        if self.embedder is None:
            return
        shelf = self.store.shelf(tenant, namespace)
        if shelf is None or not shelf.fingerprint:
            shelf = self.store.claim(tenant, namespace, self.embedder.name).result()
        self._refuse_other(namespace, shelf.fingerprint)

    def _refuse_other(self, namespace: str, fingerprint: str) -> None:
        if self.embedder is not None and fingerprint not in ("", self.embedder.name):
            raise Conflict(
                f"namespace {namespace!r} holds vectors of embedder {fingerprint!r}, this one is"
                f" {self.embedder.name!r}: re-embed the namespace, or search with mode `words`"
            )

    def _waiting(self, tenant: str, namespace: str) -> Iterator[dict[str, str]]:
        """Texts without a vector, by chunk id, a batch at a time, until there are none."""
        name = self.embedder.name if self.embedder else ""
        while chunks := self.store.pending(tenant, namespace, name, limit=BATCH):
            yield {chunk.id: chunk.searched for chunk in chunks}

    def _packed(self, texts: dict[str, str]) -> dict[str, bytes]:
        """Vectors of texts as they are stored."""
        if self.embedder is None:
            return {}
        try:
            vectors = paired(list(texts), self.embedder.embed(list(texts.values())), self.embedder.dimensions)
        except InvalidInput as error:
            raise InvalidInput(f"embedder {self.embedder.name!r} gave what no index takes: {error}") from error
        return {id: row.astype("<f4").tobytes() for id, row in zip(texts, vectors, strict=True)}

    def _left(self, tenant: str, namespace: str) -> int:
        """How many vectors are missing."""
        name = self.embedder.name if self.embedder else ""
        return sum(fingerprint != name for _, fingerprint in self.store.outline(tenant, namespace).values())

    def _shelved(self, tenant: str, namespace: str) -> Shelved:
        key = tenant, namespace
        with self._lock:
            if key not in self._held:
                made = self._indexes(tenant, namespace, self.embedder) if self._indexes and self.embedder else None
                options = {"embedder": self.embedder, "dense": self._dense, "index": made}
                self._held[key] = Shelved(self.store, tenant, namespace, **options)  # type: ignore[arg-type]
            self._held.move_to_end(key)
            while len(self._held) > MOST_HELD:
                self._held.popitem(last=False)[1].close()
            return self._held[key]


def checked_namespace(namespace: str) -> None:
    """See that it can name a namespace.

    Raises:
        InvalidInput: it is empty, too long, or has a NUL.
    """
    if not namespace or len(namespace) > _LONGEST_NAME or "\0" in namespace:
        raise InvalidInput(f"a namespace has 1 to {_LONGEST_NAME} characters and no NUL", param="namespace")


def _differs(source: Source, known: Document | None) -> bool:
    return known is None or known.sha256 != source.sha256


def _id(jobs: Sequence[Job]) -> str | None:
    return jobs[0].id if jobs else None
