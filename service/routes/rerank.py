"""Reranking, in Cohere's shape; the model worker's shipped reranker does the work."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from ctxmem.errors import Unavailable
from ctxmem.ids import new_id
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded
from service.routes.shapes import Text
from service.worker.document_wire import RerankReply

router = APIRouter(tags=["rerank"])

MOST = 1000
"""Documents of one request."""


class DocumentIn(BaseModel):
    """A document as an object; only its text is read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str


class RerankBody(BaseModel):
    """`POST /v1/rerank` and `POST /v2/rerank`, as Cohere's; what does not change the order is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    query: str
    documents: Annotated[list[str | DocumentIn], Field(min_length=1, max_length=MOST)]
    top_n: Annotated[int, Field(strict=True, ge=1)] | None = None
    return_documents: bool = False
    model: Text = ""
    deadline_ms: Annotated[int, Field(strict=True, ge=1)] | None = None

    @property
    def texts(self) -> list[str]:
        """What to put in order."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


@router.post("/v1/rerank", openapi_extra=documented(RerankBody))
@router.post("/v2/rerank", openapi_extra=documented(RerankBody))
async def rerank(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """The documents that answer a query best, in order; `top_n` above their number means all."""
    asked, library = shaped(RerankBody, body), service.library
    if library is None:
        raise Unavailable("reranking needs the model worker, and `model` is set to none")
    deadline = asked.deadline_ms / 1000 if asked.deadline_ms else None
    work = partial(library.rerank, manager.tenant, asked.query, asked.texts, k=asked.top_n, deadline=deadline)
    return as_json(_told(asked, await threaded(service, work)))


def _told(asked: RerankBody, done: RerankReply) -> dict[str, Any]:
    texts = asked.texts
    results = [
        {"index": place, "relevance_score": done.relevance[place]}
        | ({"document": {"text": texts[place]}} if asked.return_documents else {})
        for place in done.order
    ]
    meta = {"api_version": {"version": "2"}, "complete": done.complete}
    return {"id": new_id("rr"), "model": done.model, "results": results, "meta": meta}
