"""Requests as they were built: receipts, replays, originals."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from service.routes import shapes
from service.routes.access import Manager, OptionalBody, Parts, as_json, documented, shaped, threaded
from service.wire.splice import joined

router = APIRouter(prefix="/v1", tags=["requests"])


@router.get("/requests")
async def list_requests(
    service: Parts,
    manager: Manager,
    session_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str = "",
) -> Response:
    """Requests by id, those after `after`; ids are in order of time."""
    store, tenant = manager.engine.store, manager.tenant
    found = await threaded(service, lambda: store.requests(tenant, session_id=session_id, limit=limit, after=after))
    return as_json({"requests": [shapes.request(record) for record in found]})


@router.get("/requests/{request_id}")
async def receipt(service: Parts, manager: Manager, request_id: str) -> Response:
    """The receipt: each event of the request's history exactly once."""
    return as_json((await threaded(service, lambda: manager.receipt(request_id))).wire())


@router.post("/requests/{request_id}/replay", openapi_extra=documented(shapes.ReplayRequest))
async def replay(service: Parts, manager: Manager, request_id: str, body: OptionalBody) -> Response:
    """Build the request again from the log; nothing is written."""
    asked = shaped(shapes.ReplayRequest, body)
    made = await threaded(service, lambda: manager.replay(request_id, budget=asked.limits, policy=asked.policy))
    messages = msgspec.Raw(joined([message.raw or b"{}" for message in made.messages]))
    return as_json({"messages": messages, "identical": made.identical, "receipt": made.receipt.wire()})


@router.get("/items/{item_id}/restore")
async def restore(service: Parts, manager: Manager, item_id: str) -> Response:
    """The original of what a request shortened or left out, byte for byte as it came."""
    return as_json({"message": msgspec.Raw(await threaded(service, lambda: manager.original(item_id)))})
