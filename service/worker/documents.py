"""Documents in the model worker: it has the embedder, the reranker and the indexes, so ingest and search run here.

Opened by the first call that needs it. Vectors that a request leaves for later are made by a thread that takes jobs out
of the outbox, so they are made after a restart too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ctxmem.document import FORGET
from ctxmem.errors import CtxmemError, InvalidInput, ModelError
from ctxmem.job import Claim
from ctxmem.manager.engine import cache_at
from ctxmem.runner import Handler, Note, Runner
from service.worker.document_wire import (
    Asked,
    DeleteRequest,
    EmbedRequest,
    IngestRequest,
    PrefetchRequest,
    ReembedRequest,
    RerankReply,
    RerankRequest,
    SearchRequest,
)
from service.worker.loading import LOADING

if TYPE_CHECKING:
    from ctxmem.lm.rerank.late import LateReranker
    from ctxmem.lm.rerank.reranker import Reranker
    from ctxmem.ports import Cache, Embedder
    from ctxmem.retrieval.disk import OnDisk
    from ctxmem.retrieval.library import Library
    from ctxmem.stores.sql import SqlStore

Request = TypeVar("Request")

EMBED, REEMBED = "embed", "reembed"
LEASE = 15.0
"""Seconds after which the job of a worker that died is taken up again."""
_LOG = logging.getLogger(__name__)


class Documents:
    """The library, opened when it is needed. Safe for threads.

    Args:
        database: its URL; None when there is none.
        cache: opens what is shared with other processes and may be forgotten; of this process's own by default.
        embedder: packaged name, folder or hub id.
        cache_dir: where converted models are kept.
        disk: makes indexes whose vectors are on disk; None to keep all in memory.
    """

    def __init__(
        self,
        database: str | None,
        *,
        embedder: str = "minilm",
        cache_dir: Path | None = None,
        disk: OnDisk | None = None,
        cache: Callable[[], Cache] = lambda: cache_at(None),
    ) -> None:
        self._database, self._name, self._cache_dir, self._disk = database, embedder, cache_dir, disk
        self._open_cache = cache
        self._opening = threading.Lock()
        self._stop = threading.Event()
        self._jobs: threading.Thread | None = None
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self.handlers: Mapping[type[Any], Callable[[Any], Any]] = {
            IngestRequest: self._ingest,
            SearchRequest: lambda asked: self.library.search(asked.tenant, asked.query),
            PrefetchRequest: self._prefetch,
            DeleteRequest: lambda asked: self.library.delete(asked.tenant, asked.namespace, asked.ids),
            ReembedRequest: self._reembed_later,
            EmbedRequest: self._embed,
            RerankRequest: self._rerank,
        }

    def answer(self, kind: type[Request], body: bytes) -> bytes:
        """What a request of this kind gets, msgpack both.

        Raises:
            CtxmemError: as the library's own methods.
        """
        try:
            asked = msgspec.msgpack.decode(body, type=kind)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the body is not what this endpoint reads: {error}") from error
        return msgspec.msgpack.encode(self.handlers[kind](asked))

    def start(self) -> None:
        """Take up jobs, those that an earlier worker left among them."""
        if self._database is not None and self._jobs is None:
            self._jobs = threading.Thread(target=self._run, name="documents", daemon=True)
            self._jobs.start()

    def close(self) -> None:
        """Stop after the batch under way."""
        self._stop.set()
        self._behind.shutdown(wait=False, cancel_futures=True)
        if "_library" in vars(self):
            self._library.close()

    @cached_property
    def store(self) -> SqlStore:
        """The database, whose tables the gateway makes."""
        from ctxmem.stores.sql import SqlStore

        if self._database is None:
            raise ModelError("this model worker was started without a database")
        return SqlStore(self._database, create=False)

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder; loading it takes a second."""
        with LOADING:
            from ctxmem.lm.encoder import embedder_named

            return embedder_named(self._name, cache_dir=self._cache_dir)

    @property
    def library(self) -> Library:
        """The documents."""
        with self._opening:
            return self._library

    @cached_property
    def _library(self) -> Library:
        from ctxmem.retrieval.library import Library

        return Library(self.store.documents, self.embedder, self.reranker, indexes=self._disk, cache=self.cache)

    @cached_property
    def reranker(self) -> LateReranker:
        """The shipped reranker, loaded by its first use."""
        from ctxmem.lm.rerank.late import LateReranker

        return LateReranker(self._load_reranker)

    @cached_property
    def cache(self) -> Cache:
        """What may be forgotten."""
        return self._open_cache()

    def _load_reranker(self) -> Reranker:
        with LOADING:
            from ctxmem.lm.rerank.reranker import Reranker

            return Reranker.load(cache=self.cache, cache_dir=self._cache_dir)

    def _ingest(self, asked: IngestRequest) -> Any:
        self.start()
        sources = [one.source for one in asked.documents]
        return self.library.ingest(asked.tenant, asked.namespace, sources, later=asked.later)

    def _prefetch(self, asked: PrefetchRequest) -> str:
        from ctxmem.ids import new_id

        self._behind.submit(self._get_ready, asked)
        return new_id("pf")

    def _get_ready(self, asked: PrefetchRequest) -> None:
        try:
            self.library.prefetch(asked.tenant, asked.namespace, asked.text, asked.written)
        except CtxmemError as error:
            _LOG.warning("a search could not be prepared for: %s", error)

    def _embed(self, asked: EmbedRequest) -> Any:
        with self._opening:
            embedder = self.embedder
        return {"model": embedder.name, "vectors": embedder.embed(asked.texts, query=asked.query).tolist()}

    def _rerank(self, asked: RerankRequest) -> RerankReply:
        from ctxmem.lm.rerank.shipped import relevance

        with self._opening:
            reranker = self.reranker.of(asked.tenant)
        done = reranker.rank(asked.query, asked.texts, k=asked.k, deadline=asked.deadline)
        shares = tuple(map(relevance, done.scores))
        return RerankReply(reranker.name, done.order, done.scores, shares, done.complete, reranker.remembered)

    def _reembed_later(self, asked: ReembedRequest) -> str:
        from ctxmem.job import job

        self.start()
        made = job(REEMBED, {"namespace": asked.namespace})
        self.store.jobs.put(asked.tenant, [made]).result()
        return made.id

    def _run(self) -> None:
        """Do jobs until stopped; a database that is not there yet is waited for."""
        handlers: dict[str, Handler] = {EMBED: self._make, REEMBED: self._make, FORGET: self._forget}
        while not self._stop.is_set():
            try:
                Runner(self.store.jobs, handlers, lease=LEASE, idle=1.0).run(self._stop)
            except CtxmemError as error:
                _LOG.warning("no jobs are taken up: %s", error)
                self._stop.wait(5.0)

    def _make(self, claim: Claim, note: Note) -> None:
        """Make what vectors are missing, noting how far it is."""
        namespace = str(claim.job.payload["namespace"])
        if claim.job.kind == REEMBED:
            self.library.reembed(claim.tenant, namespace, progress=self._noting(note))
        else:
            self.library.embed(claim.tenant, namespace, progress=self._noting(note))

    def _forget(self, claim: Claim, note: Note) -> None:
        """Take erased vectors off the disk, where the namespace has some."""
        namespace = str(claim.job.payload["namespace"])
        if self._disk is not None and self._disk.folder(claim.tenant, namespace).exists():
            note({"erased": self.library.forget(claim.tenant, namespace)})

    def _noting(self, note: Note) -> Callable[[int, int], None]:
        def progress(done: int, whole: int) -> None:
            note({"done": done, "of": whole})
            if self._stop.is_set():
                raise ModelError("the worker is going down; the job goes on after its restart")

        return progress


PATHS: Mapping[str, type[Asked]] = {
    "/documents/ingest": IngestRequest,
    "/documents/search": SearchRequest,
    "/documents/prefetch": PrefetchRequest,
    "/documents/delete": DeleteRequest,
    "/documents/reembed": ReembedRequest,
    "/embed": EmbedRequest,
    "/rerank": RerankRequest,
}
"""Endpoints of the worker and what they read."""
