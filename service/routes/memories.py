"""Long-term memories: add, search, read, put right, delete, forget, bring in and out."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response

from ctxmem import chat
from ctxmem.errors import InvalidInput
from ctxmem.memories import Scope
from service.routes import memory_shapes as shapes
from service.routes.access import JsonBody, Manager, Parts, as_json, documented, shaped, threaded
from service.routes.shapes import Text

router = APIRouter(prefix="/v1", tags=["memories"])
Name = Annotated[Text, Query()]


def _whose(user_id: Name = "", agent_id: Name = "", session_id: Name = "") -> Scope:
    return Scope(user_id, agent_id, session_id)


Who = Annotated[Scope, Depends(_whose)]
IfMatch = Annotated[str | None, Header(max_length=64)]


@router.post("/memories", openapi_extra=documented(shapes.AddRequest))
async def add(
    service: Parts,
    manager: Manager,
    body: JsonBody,
    idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Keep what was told; durable when this answers. The same idempotency key again gives the first answer."""
    asked = shaped(shapes.AddRequest, body)

    def work() -> Response:
        said = asked.text if asked.text is not None else chat.parse_all(body.messages())
        done = manager.memories.add(said, asked.who, terms=asked.terms, infer=asked.infer, key=idempotency_key)
        return as_json(shapes.told(done))

    return await threaded(service, work)


@router.post("/memories/search", openapi_extra=documented(shapes.SearchRequest))
async def search(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """The memories that answer a query, best first; by words alone while the model worker is away."""
    asked = shaped(shapes.SearchRequest, body)
    found = await threaded(service, lambda: manager.memories.search(asked.query, asked.who, asked.wanted))
    return as_json(shapes.found(found, explain=asked.explain))


@router.post("/memories/forget", openapi_extra=documented(shapes.ForgetRequest))
async def forget(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Delete memories by what they are; a dry run, which is the default, only says which."""
    asked = shaped(shapes.ForgetRequest, body)
    done = await threaded(service, lambda: manager.memories.forget(asked.who, asked.selection, dry_run=asked.dry_run))
    return as_json({"forgotten": done.ids, "dry_run": done.dry_run})


@router.post("/memories/import", openapi_extra=documented(shapes.ImportRequest))
async def bring_in(service: Parts, manager: Manager, body: JsonBody) -> Response:
    """Bring memories in, as the export gives them or as mem0 does; those that are known already are left out."""
    asked = shaped(shapes.ImportRequest, body)
    done = await threaded(service, lambda: manager.memories.load(asked.memories, asked.who))
    return as_json({"results": [{"id": one.id, "memory": one.text, "event": one.event} for one in done]})


@router.get("/memories/export")
async def take_out(
    service: Parts,
    manager: Manager,
    who: Who,
    format: Annotated[str, Query(pattern="^(ctxmem|mem0)$")] = "ctxmem",
) -> Response:
    """All memories of a scope as JSON Lines, superseded and expired ones included."""
    rows = await threaded(service, lambda: [*map(msgspec.json.encode, manager.memories.export(who, shape=format))])
    return Response(b"".join(row + b"\n" for row in rows), media_type="application/x-ndjson")


@router.get("/memories")
async def listed(
    service: Parts,
    manager: Manager,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: str = "",
) -> Response:
    """Memories of a scope by id, those after `after`; superseded and expired ones included."""
    found = await threaded(service, lambda: manager.memories.list(who, after=after, limit=limit))
    return as_json({"memories": [shapes.memory(one) for one in found]})


@router.get("/memories/{memory_id}")
async def one_memory(service: Parts, manager: Manager, memory_id: str) -> Response:
    """One memory; the ETag names its revision."""
    return _tagged(await threaded(service, lambda: shapes.memory(manager.memories.get(memory_id))))


@router.patch("/memories/{memory_id}", openapi_extra=documented(shapes.UpdateRequest))
async def update(
    service: Parts, manager: Manager, memory_id: str, body: JsonBody, if_match: IfMatch = None
) -> Response:
    """Put a memory right; with If-Match only at that revision. Its history keeps what it said before."""
    asked, expected = shaped(shapes.UpdateRequest, body), _revision(if_match)

    def work() -> Response:
        terms = asked.terms(manager.memories.get(memory_id))
        done = manager.memories.update(memory_id, asked.text, terms=terms, expected=expected)
        return _tagged(shapes.memory(done))

    return await threaded(service, work)


@router.delete("/memories/{memory_id}")
async def delete(service: Parts, manager: Manager, memory_id: str, if_match: IfMatch = None) -> Response:
    """Delete a memory and its words in its history; with If-Match only at that revision."""
    expected = _revision(if_match)
    await threaded(service, lambda: manager.memories.delete(memory_id, expected=expected))
    return as_json({"id": memory_id, "event": "DELETE"})


@router.get("/memories/{memory_id}/history")
async def history(service: Parts, manager: Manager, memory_id: str) -> Response:
    """What was done to a memory, oldest first."""
    return as_json(await threaded(service, lambda: shapes.history(manager.memories.history(memory_id))))


@router.get("/profile")
async def profile(service: Parts, manager: Manager, user_id: Name) -> Response:
    """What is known about a user: what is settled, and what was told last."""
    return as_json(await threaded(service, lambda: shapes.profile(manager.memories.profile(user_id))))


def _tagged(one: dict[str, object]) -> Response:
    answer = as_json(one)
    answer.headers["etag"] = f'"{one["revision"]}"'
    return answer


def _revision(if_match: str | None) -> int | None:
    """The revision that If-Match names; None for any.

    Raises:
        InvalidInput: it is no ETag of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().removeprefix("W/").strip('"')
    if not (tag.isascii() and tag.isdigit() and len(tag) < 16):
        raise InvalidInput('If-Match takes the ETag of one memory, such as "3"', param="if-match")
    return int(tag)
