"""Documents: put in, list, read, delete, search; and vectors of texts. The model worker's library does the work."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from ctxmem import chat
from ctxmem.errors import NotFound, Unavailable
from ctxmem.manager import ContextManager
from ctxmem.retrieval.pipelines import search as search_after
from ctxmem.retrieval.query import within
from service.routes import document_shapes as shapes
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded
from service.states import Asked
from service.upstream.routing import route
from service.wiring import Service
from service.worker.library import RemoteLibrary

router = APIRouter(prefix="/v1", tags=["documents"])

_NEWEST = 100
"""Events that are looked through for a user's message."""
AT_ONCE = 64 * 1024
"""Characters of documents up to which an answer waits for their vectors, unless the caller says otherwise."""

Namespace = Annotated[str, Query(min_length=1, max_length=256)]


@router.post("/documents", openapi_extra=documented(shapes.IngestBody))
async def ingest(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Put documents in, each in the place of the one with its id; durable, and found by their words, on return."""
    asked = shaped(shapes.IngestBody, body)
    sources = [one.source(place) for place, one in enumerate(asked.documents)]
    waits = sum(len(one.data) for one in sources) <= AT_ONCE if asked.wait is None else asked.wait
    library = _library(service)
    done = await threaded(service, lambda: library.ingest(manager.tenant, asked.namespace, sources, later=not waits))
    told = {"ids": done.ids, "written": done.written, "chunks": done.chunks, "embedded": done.embedded}
    return as_json(told | ({"job_id": done.job_id} if done.job_id else {}))


@router.post("/documents/search", openapi_extra=documented(shapes.SearchBody))
async def search(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Find passages, best first; with a budget as many of the best as fit into so many tokens."""
    asked = shaped(shapes.SearchBody, body)
    query, library, complete = asked.asked, _library(service), _complete(service, asked)

    def work() -> Response:
        done = search_after(library, manager.tenant, query, complete, pipeline=asked.pipeline)
        count = manager.engine.counters(asked.model)
        return as_json(
            shapes.results(done, done.found if asked.budget is None else within(done.found, asked.budget, count))
        )

    return await threaded(service, work)


@router.post("/prefetch", status_code=202, openapi_extra=documented(shapes.PrefetchBody))
async def prefetch(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Get ready for a search that is about to come; it goes on behind the answer and changes no result."""
    asked, library = shaped(shapes.PrefetchBody, body), _library(service)

    def work() -> str:
        text = asked.text or (_newest_words(manager, asked.session_id) if asked.session_id else "")
        return library.prefetch(manager.tenant, asked.namespace, text, asked.written)

    return as_json({"ticket": await threaded(service, work)}, 202)


@router.post("/documents/reembed", status_code=202, openapi_extra=documented(shapes.ReembedBody))
async def reembed(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Have the vectors of a namespace made anew, by the embedder in use; search goes on by words meanwhile."""
    asked, library = shaped(shapes.ReembedBody, body), _library(service)
    return as_json({"job_id": await threaded(service, lambda: library.reembed(manager.tenant, asked.namespace))}, 202)


@router.get("/documents")
async def listed(
    service: Parts,
    manager: Manager,
    namespace: Namespace = "default",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str = "",
) -> Response:
    """Documents by id, those after `after`, without their texts."""
    store, tenant = service.documents, manager.tenant
    found = await threaded(service, lambda: store.documents(tenant, namespace, limit=limit, after=after))
    return as_json({"documents": [shapes.document(one) for one in found.values()]})


@router.get("/documents/{document_id:path}")
async def one(service: Parts, manager: Manager, document_id: str, namespace: Namespace = "default") -> Response:
    """A document with its text."""
    store, tenant = service.documents, manager.tenant
    kept = await threaded(service, lambda: store.document(tenant, namespace, document_id))
    if kept is None:
        raise NotFound(f"no document {document_id!r} in namespace {namespace!r}")
    return as_json(shapes.document(kept, with_text=True))


@router.delete("/documents/{document_id:path}")
async def delete(service: Parts, manager: Manager, document_id: str, namespace: Namespace = "default") -> Response:
    """Delete a document with its chunks and vectors."""
    store, tenant = service.documents, manager.tenant
    if not await threaded(service, lambda: store.delete(tenant, namespace, [document_id]).result()):
        raise NotFound(f"no document {document_id!r} in namespace {namespace!r}")
    return as_json({"id": document_id, "deleted": True})


@router.get("/jobs/{job_id}")
async def job(service: Parts, manager: Manager, job_id: str) -> Response:
    """How far a job is: `{id, kind, state, progress, error}`."""
    kept = await threaded(service, lambda: service.jobs.job(manager.tenant, job_id))
    if kept is None:
        raise NotFound(f"no job {job_id!r}")
    told: dict[str, Any] = {"id": kept.id, "kind": kept.kind, "state": kept.state, "attempts": kept.attempts}
    return as_json(told | {"progress": dict(kept.progress), "error": kept.error})


@router.post("/embeddings", openapi_extra=documented(shapes.EmbeddingsBody))
async def embeddings(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Vectors of texts by the model that documents are found with, in OpenAI's shape; `usage` is an estimate."""
    asked, library = shaped(shapes.EmbeddingsBody, body), _library(service)
    made = await threaded(service, lambda: library.embed(asked.texts))
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector, asked.encoding_format)}
        for place, vector in enumerate(made.vectors)
    ]
    tokens = sum(len(text) // 4 + 1 for text in asked.texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return as_json({"object": "list", "data": data, "model": service.settings.embedder, "usage": usage})


def _newest_words(manager: ContextManager, session_id: str) -> str:
    """What the user of a session said last, of its newest events.

    Raises:
        NotFound: there is no such session.
    """
    session = manager.session(session_id)
    events = session.events(after_seq=session.head.events - _NEWEST)
    said = (event for event in reversed(events) if event.role == "user" and event.kind is None)
    newest = next(said, None)
    return chat.parse(newest.raw).text if newest is not None else ""


def _library(service: Service) -> RemoteLibrary:
    """The worker's library.

    Raises:
        Unavailable: the service runs without a model worker.
    """
    if service.library is None:
        raise Unavailable("documents need the model worker, and `model` is set to none")
    return service.library


def _complete(service: Service, asked: shapes.SearchBody) -> Asked:
    """The model that writes for a pipeline, asked on the gateway's loop.

    Raises:
        UnknownModel: a pipeline is asked for, and no upstream serves the model.
    """
    model = asked.model or service.settings.model
    if asked.pipeline != "plain":
        route(service.upstreams, model)
    return Asked(service.upstreams, model, asyncio.get_running_loop(), stream=True)


def _written(vector: list[float], encoding: str) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32."""
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
