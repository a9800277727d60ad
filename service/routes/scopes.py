"""Scopes of a session: begin a subtask, end it, look into it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Response
from pydantic import Field

from ctxmem.compressors.pencil.marks import Mark
from ctxmem.manager import ContextManager
from ctxmem.manager.scopes import Marked
from ctxmem.manager.session import described
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded
from service.routes.shapes import Text, Wire
from service.wiring import Service

router = APIRouter(prefix="/v1/sessions/{session_id}/scopes", tags=["scopes"])

Refs = Annotated[tuple[Text, ...], Field(max_length=64)]


class OpenRequest(Wire):
    """`POST /v1/sessions/{id}/scopes`: begin a subtask; `refs` are items that an isolated one is given."""

    task: str
    visibility: Literal["inherit", "isolated"] = "inherit"
    refs: Refs = ()


class ReturnRequest(Wire):
    """`POST .../return`: the answer, and items that it stands on."""

    answer: str
    refs: Refs = ()


class TailRequest(Wire):
    """`POST .../tail`: what is left to do."""

    task: str


class AbortRequest(Wire):
    """`POST .../abort`: why there is no answer."""

    reason: str


class RecallRequest(Wire):
    """`POST /v1/sessions/{id}/scopes/recall`: a handle, or words to search for."""

    query: str
    k: Annotated[int, Field(ge=1, le=50)] = 5


@router.post("", status_code=201, openapi_extra=documented(OpenRequest))
async def begin(service: Parts, manager: Manager, session_id: str, body: JsonBody) -> Response:
    """Begin a subtask; 409 while a tool call is unanswered."""
    asked = shaped(OpenRequest, body)
    scopes = manager.session(session_id).scopes
    done = await threaded(service, lambda: scopes.open(asked.task, visibility=asked.visibility, refs=asked.refs))
    return as_json(_wire(done), 201)


@router.get("")
async def open_ones(service: Parts, manager: Manager, session_id: str) -> Response:
    """Scopes that are open, outermost first."""
    frames = await threaded(service, manager.session(session_id).scopes.frames)
    return as_json({"scopes": [{"id": frame.scope, "task": frame.task} for frame in frames]})


@router.post("/recall", openapi_extra=documented(RecallRequest))
async def recall(service: Parts, manager: Manager, session_id: str, body: JsonBody) -> Response:
    """What was said in the session, by a handle or by a search over its log."""
    asked = shaped(RecallRequest, body)
    hits = await threaded(service, lambda: manager.session(session_id).scopes.recall(asked.query, asked.k))
    return as_json({"results": [{"id": hit.id, "text": hit.text, "score": hit.score} for hit in hits]})


@router.post("/{scope_id}/return", openapi_extra=documented(ReturnRequest))
async def give(service: Parts, manager: Manager, session_id: str, scope_id: str, body: JsonBody) -> Response:
    """End a subtask with its answer; the next request folds it."""
    asked = shaped(ReturnRequest, body)

    def work() -> Marked:
        for ref in asked.refs:
            manager.original(ref)
        see = f"\n[see {', '.join(asked.refs)}]" if asked.refs and asked.answer.strip() else ""
        mark = Mark("return", scope_id, asked.answer + see)
        return manager.session(session_id).scopes.end(mark, said=asked.answer)

    done = await threaded(service, work)
    return as_json({**_wire(done), "unverified": done.unverified})


@router.post("/{scope_id}/tail", openapi_extra=documented(TailRequest))
async def reduce(service: Parts, manager: Manager, session_id: str, scope_id: str, body: JsonBody) -> Response:
    """Let a subtask go on with a smaller task; what was done so far is folded."""
    return await _ended(service, manager, session_id, Mark("tail", scope_id, shaped(TailRequest, body).task))


@router.post("/{scope_id}/abort", openapi_extra=documented(AbortRequest))
async def abort(service: Parts, manager: Manager, session_id: str, scope_id: str, body: JsonBody) -> Response:
    """End a subtask without an answer."""
    return await _ended(service, manager, session_id, Mark("abort", scope_id, shaped(AbortRequest, body).reason))


@router.post("/{scope_id}/expand")
async def expand(service: Parts, manager: Manager, session_id: str, scope_id: str) -> Response:
    """What was said in a subtask, word for word."""
    found = await threaded(service, lambda: manager.session(session_id).scopes.expand(scope_id))
    events = [{**described(event), "message": msgspec.Raw(event.raw)} for event in found]
    return as_json({"id": scope_id, "events": events})


async def _ended(service: Service, manager: ContextManager, session_id: str, mark: Mark) -> Response:
    return as_json(_wire(await threaded(service, lambda: manager.session(session_id).scopes.end(mark))))


def _wire(done: Marked) -> dict[str, Any]:
    return {
        "id": done.scope,
        "session_id": done.session_id,
        "event_id": done.event_id,
        "revision": done.revision,
        "open": done.open,
    }
