"""Sessions: the log by name."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Response

from ctxmem import chat
from ctxmem.compressors.mem1.log import difference
from ctxmem.ids import new_id
from ctxmem.manager.session import SessionView, described
from ctxmem.manager.states import States, wire
from ctxmem.records import Batch, Event, Session
from service.routes import shapes
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded

router = APIRouter(prefix="/v1", tags=["sessions"])

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/sessions", status_code=201, openapi_extra=documented(shapes.SessionRequest))
async def open_session(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Open a session; 409 when the name is taken."""
    asked = shaped(shapes.SessionRequest, body)
    name = asked.session_id or new_id("s")
    now = time.time()
    head = Session(manager.session(name).id, user_id=asked.user_id, revision=1, created_at=now, updated_at=now)
    batch = Batch(head, expected=0)
    await threaded(service, lambda: manager.engine.store.write(manager.tenant, batch).result())
    return as_json(shapes.session(head), 201)


@router.get("/sessions")
async def list_sessions(
    service: Parts, manager: Manager, user_id: str | None = None, limit: Limit = 100, after: str = ""
) -> Response:
    """Sessions by id, those after `after`."""
    store, tenant = manager.engine.store, manager.tenant
    found = await threaded(service, lambda: store.sessions(tenant, user_id=user_id, limit=limit, after=after))
    return as_json({"sessions": [shapes.session(head) for head in found]})


@router.get("/sessions/{session_id}")
async def one_session(service: Parts, manager: Manager, session_id: str) -> Response:
    """A session's head."""
    return as_json(shapes.session(await threaded(service, lambda: manager.session(session_id).head)))


@router.delete("/sessions/{session_id}")
async def erase_session(service: Parts, manager: Manager, session_id: str) -> Response:
    """Erase a session with everything that came of it."""
    return as_json(shapes.erasure(await threaded(service, lambda: manager.session(session_id).erase())))


@router.post("/sessions/{session_id}/events", openapi_extra=documented(shapes.AppendRequest))
async def append(
    service: Parts,
    manager: Manager,
    session_id: str,
    body: JsonBody,
    idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Log messages; durable when this answers. The same idempotency key again gives the first answer."""
    asked = shaped(shapes.AppendRequest, body)

    def work() -> Response:
        done = manager.session(session_id, user_id=asked.user_id).append(
            chat.parse_all(body.messages()),
            expected_revision=asked.expected_revision,
            idempotency_key=idempotency_key,
        )
        return as_json({"revision": done.revision, "event_ids": done.event_ids})

    return await threaded(service, work)


@router.get("/sessions/{session_id}/events")
async def events(
    service: Parts,
    manager: Manager,
    session_id: str,
    after_seq: Annotated[int, Query(ge=-1, le=2**53)] = -1,
    limit: Limit = 100,
) -> Response:
    """Events of all branches in the order they were logged, each with its message as it came."""
    view = manager.session(session_id)
    found = await threaded(service, lambda: view.events(after_seq=after_seq, limit=limit))
    return as_json({"events": [_event(one) for one in found]})


@router.get("/sessions/{session_id}/export")
async def export(
    service: Parts, manager: Manager, session_id: str, format: Annotated[str, Query(pattern="^(jsonl|json)$")] = "jsonl"
) -> Response:
    """The whole log: JSON Lines, or one JSON object."""
    view = manager.session(session_id)
    if format == "json":
        head, found = await threaded(service, lambda: (view.head, _all(view)))
        return as_json({"session": shapes.session(head), "events": found})
    lines = await threaded(service, lambda: [msgspec.json.encode(one) for one in _all(view)])
    return Response(b"".join(line + b"\n" for line in lines), media_type="application/x-ndjson")


@router.get("/sessions/{session_id}/state")
async def state(
    service: Parts, manager: Manager, session_id: str, asked: Annotated[shapes.StateQuery, Query()]
) -> Response:
    """What the session knows: its newest state or an older one, how it differs from another, and which there were."""
    states = States(manager, session_id)

    def work() -> dict[str, Any]:
        shown = states.at(asked.version, sources=asked.sources)
        answer = wire(shown)
        if asked.diff is not None:
            answer["diff"] = difference(states.at(asked.diff).state, shown.state)
        if asked.history:
            answer["history"] = [{**wire(one), "items": len(one.state.items)} for one in states.versions()]
        return answer

    return as_json(await threaded(service, work))


def _all(view: SessionView) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = -1
    while page := view.events(after_seq=after):
        found += [_event(one) for one in page]
        after = page[-1].seq
    return found


def _event(logged: Event) -> dict[str, Any]:
    return {**described(logged), "message": msgspec.Raw(logged.raw)}
