"""Models that requests may name, over all upstreams."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from ctxmem.errors import InvalidInput
from service.errors import UnknownModel, UpstreamError
from service.routes.access import Manager, Parts, as_json
from service.upstream.client import Cut, UpstreamClient
from service.wire.encoding import unpacked
from service.wire.headers import to_client, to_upstream

router = APIRouter(prefix="/v1", tags=["models"])

_ANSWER_S = 5.0
"""Seconds an upstream gets to list its models."""
_LIMIT = 2**24


@router.get("/models")
async def list_models(service: Parts, _: Manager) -> Response:
    """The models of all upstreams in the OpenAI shape; an upstream that does not answer is left out."""
    return as_json({"object": "list", "data": await _models(service.upstreams.values())})


@router.get("/models/{model:path}")
async def one_model(service: Parts, _: Manager, model: str) -> Response:
    """One model; 404 when no upstream lists it."""
    found = next((each for each in await _models(service.upstreams.values()) if each.get("id") == model), None)
    if found is None:
        raise UnknownModel(model)
    return as_json(found)


async def _models(upstreams: Any) -> list[dict[str, Any]]:
    lists = await asyncio.gather(*(_of(upstream) for upstream in upstreams))
    return list({str(model.get("id")): model for models in reversed(lists) for model in models}.values())


async def _of(upstream: UpstreamClient) -> list[dict[str, Any]]:
    """The models an upstream is set to serve; those it lists itself when it is set to serve any."""
    name = upstream.settings.name
    listed = [model for model in upstream.settings.models if model != "*"]
    known = [{"id": model, "object": "model", "created": 0, "owned_by": name} for model in listed]
    return known if len(listed) == len(upstream.settings.models) else known + await _asked(upstream)


async def _asked(upstream: UpstreamClient) -> list[dict[str, Any]]:
    headers = to_upstream((), key=upstream.key, readable=True)
    try:
        async with asyncio.timeout(_ANSWER_S), upstream.send("GET", "/models", headers=headers) as reply:
            encoding = dict(to_client(reply.headers)).get(b"content-encoding", b"").decode("latin-1")
            body = unpacked(await reply.body(), encoding, limit=_LIMIT)
            return msgspec.json.decode(body, type=_List).data
    except (UpstreamError, Cut, InvalidInput, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError):
        return []


class _List(msgspec.Struct):
    data: list[dict[str, Any]] = []
