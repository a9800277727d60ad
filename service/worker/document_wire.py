"""What gateway and model worker tell each other about documents; answers are the library's own values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec

from ctxmem.retrieval.query import Query
from ctxmem.retrieval.source import Source


class Brought(msgspec.Struct):
    """A `Source`, its content as text or as bytes."""

    text: str | None
    data: bytes | None
    told: dict[str, Any]

    @classmethod
    def of(cls, source: Source) -> Brought:
        """What goes over the wire."""
        told = {field.name: getattr(source, field.name) for field in fields(Source) if field.name != "data"}
        text = source.data if isinstance(source.data, str) else None
        return cls(text, None if isinstance(source.data, str) else source.data, told)

    @property
    def source(self) -> Source:
        """What the library takes."""
        return Source(self.text if self.text is not None else self.data or b"", **self.told)


class Asked(msgspec.Struct):
    """Something asked of the worker's library."""


class IngestRequest(Asked):
    """Documents to put in; with `later` their vectors are left to a job."""

    tenant: str
    namespace: str
    documents: list[Brought]
    later: bool = False


class SearchRequest(Asked):
    """A search."""

    tenant: str
    query: Query


class PrefetchRequest(Asked):
    """A search that is about to come; the answer is a ticket's name, and the work goes on behind it."""

    tenant: str
    namespace: str
    text: str = ""
    written: str | None = None


class DeleteRequest(Asked):
    """Documents to delete."""

    tenant: str
    namespace: str
    ids: list[str]


class ReembedRequest(Asked):
    """A namespace to give to this worker's embedder; the answer is a job's id."""

    tenant: str
    namespace: str


class EmbedRequest(Asked):
    """Texts to embed."""

    texts: list[str]
    query: bool = False


class EmbedReply(msgspec.Struct):
    """Vectors of length one.

    Attributes:
        model: fingerprint of the embedder.
        vectors: (texts, dimensions)
    """

    model: str
    vectors: list[list[float]]


class RerankRequest(Asked):
    """Texts to put in order; see `ctxmem.lm.rerank.reranker.Reranker.rank`."""

    tenant: str
    query: str
    texts: list[str]
    k: int | None = None
    deadline: float | None = None


class RerankReply(msgspec.Struct):
    """Texts in order.

    Attributes:
        model: fingerprint of the reranker.
        order: their places, best first, at most k.
        scores: of every text, by place; -inf for an empty one.
        relevance: the same on a scale from 0 to 1.
        complete: false when the deadline cut the run short.
        remembered: texts whose scores were known.
    """

    model: str
    order: tuple[int, ...]
    scores: tuple[float, ...]
    relevance: tuple[float, ...]
    complete: bool
    remembered: int = 0


class Ingested(msgspec.Struct):
    """See `ctxmem.retrieval.library.Ingested`, whose module this process does not load."""

    ids: list[str]
    written: int
    chunks: int
    embedded: int
    job_id: str | None
