"""The worker's library seen from the gateway: the same verbs over its socket. Loads no numpy, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.retrieval.query import Query, Results
from ctxmem.retrieval.source import Source
from service.metrics import Metrics
from service.worker.channel import Channel
from service.worker.document_wire import (
    Asked,
    Brought,
    DeleteRequest,
    EmbedReply,
    EmbedRequest,
    Ingested,
    IngestRequest,
    PrefetchRequest,
    ReembedRequest,
    RerankReply,
    RerankRequest,
    SearchRequest,
)

Reply = TypeVar("Reply")

PATIENCE = 600.0
"""Seconds to wait for an ingest."""
SEARCH = 30.0
"""Seconds to wait for a search; the first one loads the model."""


class RemoteLibrary:
    """Documents, by the model worker. Safe for threads."""

    def __init__(self, socket_path: Path | str, metrics: Metrics | None = None) -> None:
        """Name the worker's socket; nothing is opened before the first call."""
        self._channel = Channel(socket_path)
        self._metrics = metrics

    def ingest(self, tenant: str, namespace: str, sources: Sequence[Source], *, later: bool = False) -> Ingested:
        """Put documents in.

        Raises:
            InvalidInput, Conflict: as the library.
            Unavailable: the worker is away.
        """
        try:
            asked = IngestRequest(tenant, namespace, [Brought.of(source) for source in sources], later)
            return self._ask("/documents/ingest", asked, Ingested)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"a text is not Unicode: {error}", param="documents") from error

    def search(self, tenant: str, query: Query, *, timeout: float = SEARCH) -> Results:
        """Find chunks, within so many seconds.

        Raises:
            Conflict: as the library.
            Unavailable: the worker is away or too slow.
        """
        found = self._ask("/documents/search", SearchRequest(tenant, query), Results, timeout=timeout)
        if self._metrics is not None:
            self._metrics.searches.labels("cache" if "cached" in found.stats else "index").inc()
        return found

    def prefetch(self, tenant: str, namespace: str, text: str = "", written: str | None = None) -> str:
        """Have the worker get ready for a search, from what has been written of its text, too; returns at once.

        Raises:
            Unavailable: the worker is away.
        """
        return self._ask("/documents/prefetch", PrefetchRequest(tenant, namespace, text, written), str, timeout=SEARCH)

    def delete(self, tenant: str, namespace: str, document_ids: Sequence[str]) -> int:
        """Delete documents; returns how many were there."""
        return self._ask("/documents/delete", DeleteRequest(tenant, namespace, list(document_ids)), int)

    def reembed(self, tenant: str, namespace: str) -> str:
        """Have a namespace's vectors made anew; returns the job's id."""
        return self._ask("/documents/reembed", ReembedRequest(tenant, namespace), str)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> EmbedReply:
        """Vectors of texts."""
        return self._ask("/embed", EmbedRequest(list(texts), query), EmbedReply)

    def rerank(
        self, tenant: str, query: str, texts: Sequence[str], *, k: int | None = None, deadline: float | None = None
    ) -> RerankReply:
        """The best k texts in order; past the deadline, in seconds, the best order so far.

        Raises:
            InvalidInput: as the reranker.
            Unavailable: the worker is away.
        """
        done = self._ask("/rerank", RerankRequest(tenant, query, list(texts), k, deadline), RerankReply)
        if self._metrics is not None:
            self._metrics.reranked.labels("cache").inc(done.remembered)
            self._metrics.reranked.labels("model").inc(len(texts) - done.remembered)
        return done

    def close(self) -> None:
        """Close the connections that are idle."""
        self._channel.close()

    def _ask(self, path: str, asked: Asked, kind: type[Reply], *, timeout: float = PATIENCE) -> Reply:
        try:
            body = msgspec.msgpack.encode(asked)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"cannot be sent: {error}") from error
        reply = self._channel.exchange("POST", path, body, timeout=timeout)
        try:
            return msgspec.msgpack.decode(reply, type=kind)
        except msgspec.DecodeError as error:
            raise Unavailable(f"the model worker answered something else: {error}") from error


class RemoteReranker:
    """Reads query and text together, in the worker. Implements `ctxmem.ports.Remembering`.

    Args:
        library: the worker.
        tenant: whose scores the worker may know already.
    """

    def __init__(self, library: RemoteLibrary, tenant: str = "default") -> None:
        self.remembered = 0
        self._library, self._tenant = library, tenant

    @property
    def name(self) -> str:
        """Fingerprint of the worker's reranker."""
        return self._library.rerank(self._tenant, "name", []).model

    def of(self, tenant: str) -> RemoteReranker:
        """The same for a tenant."""
        return RemoteReranker(self._library, tenant)

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """One score per text, higher is better.

        Raises:
            Unavailable: the worker is away, or the deadline passed.
        """
        done = self._library.rerank(self._tenant, query, texts, deadline=deadline)
        self.remembered += done.remembered
        if not done.complete:
            raise Unavailable(f"reranking {len(texts)} texts takes longer than its deadline of {deadline} s")
        return list(done.scores)
