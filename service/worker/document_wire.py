"""What gateway and model worker tell each other about documents; answers are the library's own values."""

from __future__ import annotations

import msgspec

from ctxmem.retrieval.query import Query
from ctxmem.retrieval.source import Source


class Asked(msgspec.Struct):
    """Something asked of the worker's library."""


class IngestRequest(Asked):
    """Documents to put in; with `later` their vectors are left to a job."""

    tenant: str
    namespace: str
    documents: list[Source]
    later: bool = False


class SearchRequest(Asked):
    """A search."""

    tenant: str
    query: Query


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


class Ingested(msgspec.Struct):
    """See `ctxmem.retrieval.library.Ingested`, whose module this process does not load."""

    ids: list[str]
    written: int
    chunks: int
    embedded: int
    job_id: str | None
