"""Bodies about documents as callers send them, and documents and finds as they stand on the wire."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ctxmem.document import Document, Filter
from ctxmem.errors import InvalidInput
from ctxmem.retrieval.pipelines import Pipeline
from ctxmem.retrieval.query import MOST, Found, Mode, Query, Results
from ctxmem.retrieval.source import Source
from service.routes.shapes import Text, Tokens, Wire

Seconds = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
MOST_DOCUMENTS = 1000


class DocumentIn(Wire):
    """One document: `text`, or `data` in base64."""

    id: Annotated[str, Field(max_length=512)] = ""
    text: str | None = None
    data: str | None = None
    name: Annotated[str, Field(max_length=512)] = ""
    kind: Text = ""
    title: Text = ""
    user_id: Text = ""
    session_id: Text = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    at: Seconds | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DocumentIn:
        if (self.text is None) == (self.data is None):
            raise ValueError("give text or data, one of them")
        return self

    def source(self, place: int) -> Source:
        """What the library takes.

        Raises:
            InvalidInput: the data is not base64.
        """
        try:
            data = self.text if self.text is not None else base64.b64decode(self.data or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"data is not base64: {error}", param=f"documents[{place}].data") from error
        told = self.model_dump(include={"id", "name", "kind", "title", "user_id", "session_id", "metadata", "at"})
        return Source(data, **told)


class IngestBody(Wire):
    """`POST /v1/documents`: put documents in; with `wait` false their vectors are left to a job."""

    namespace: Name = "default"
    documents: Annotated[list[DocumentIn], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    wait: bool | None = None


class FiltersIn(Wire):
    """Which documents may be found."""

    user_id: Text = ""
    session_id: Text = ""
    document_ids: list[str] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    since: Seconds | None = None
    until: Seconds | None = None


class SearchBody(Wire):
    """`POST /v1/documents/search`; `model` counts the budget and writes for the pipeline."""

    query: str
    namespace: Name = "default"
    top_k: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 10
    filters: FiltersIn = Field(default_factory=FiltersIn)
    mode: Mode = "hybrid"
    rerank: bool = False
    pipeline: Pipeline = "plain"
    mmr: Annotated[float, Field(ge=0, le=1)] | None = None
    budget: Tokens | None = None
    model: Text = ""
    deadline_ms: Annotated[int, Field(strict=True, ge=1)] | None = None

    @property
    def asked(self) -> Query:
        """What the library takes; raises `InvalidInput` for a query that is none."""
        return Query(
            self.query,
            self.namespace,
            k=self.top_k,
            mode=self.mode,
            filter=Filter(**self.filters.model_dump()),
            rerank=self.rerank,
            mmr=self.mmr,
            deadline=self.deadline_ms / 1000 if self.deadline_ms else None,
        )


class PrefetchBody(Wire):
    """`POST /v1/prefetch`: a text, or the session whose newest user message it is, or the namespace alone.

    Attributes:
        written: what a model has made of that text by now; empty while that is nothing, null where none rewrites it.
    """

    namespace: Name = "default"
    text: str = ""
    written: str | None = None
    session_id: str = ""


class ReembedBody(Wire):
    """`POST /v1/documents/reembed`."""

    namespace: Name = "default"


class EmbeddingsBody(Wire):
    """`POST /v1/embeddings`, as OpenAI's; what does not change vectors is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1, max_length=2048)]
    model: Text = ""
    encoding_format: Annotated[str, Field(pattern="^(float|base64)$")] = "float"

    @property
    def texts(self) -> list[str]:
        """What to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


def document(kept: Document, *, with_text: bool = False) -> dict[str, Any]:
    """A document on the wire."""
    told: dict[str, Any] = {"id": kept.id, "namespace": kept.namespace, "kind": kept.kind, "title": kept.title}
    told |= {"user_id": kept.user_id, "session_id": kept.session_id, "metadata": kept.metadata, "at": kept.at}
    return told | ({"text": kept.text} if with_text else {})


def results(done: Results, found: Sequence[Found]) -> dict[str, Any]:
    """What a search found."""
    return {
        "results": [
            {
                "id": one.id,
                "document_id": one.document_id,
                "text": one.text,
                "score": one.score,
                "metadata": one.metadata,
                "start": one.start,
                "end": one.end,
                "title": one.title,
                "lead": one.lead,
            }
            for one in found
        ],
        "exact": done.exact,
        "coverage": done.coverage,
        "degraded": list(done.degraded),
        "stats": dict(done.stats),
    }
