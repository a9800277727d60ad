"""What every handler starts with: the parts of the service, the caller's manager, the body, the thread hop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Request, Response
from pydantic import BaseModel, ValidationError

from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from service.dataplane import receive
from service.wire import splice
from service.wire.encoding import unpacked
from service.wire.headers import first
from service.wire.splice import Body
from service.wiring import Service

Made = TypeVar("Made")
Shape = TypeVar("Shape", bound=BaseModel)


async def parts(request: Request) -> Service:
    """The parts of the service."""
    service: Service = request.app.state.service
    return service


async def manager(request: Request) -> ContextManager:
    """The manager in the scope of the caller's tenant.

    Raises:
        Unauthorized: the credential is needed and not known.
    """
    service = await parts(request)
    return service.manager.for_tenant(service.tenants.of(dict(request.scope["headers"])))


async def body(request: Request) -> Body:
    """The request's JSON object, under the limits of the data plane.

    Raises:
        InvalidInput, BodyTooLarge, BodyTimeout: as the data plane.
    """
    return splice.split(await _content(request))


async def body_or_none(request: Request) -> Body:
    """The same; no body at all is an empty object."""
    return splice.split(await _content(request) or b"{}")


async def _content(request: Request) -> bytes:
    settings, headers = (await parts(request)).settings, request.scope["headers"]
    limit = settings.max_body_bytes
    received = await receive.body(request.receive, headers, limit=limit, timeout_s=settings.body_timeout_s)
    encoding = first(headers, b"content-encoding").decode("latin-1")
    return unpacked(received, encoding, limit=limit) if encoding else received


Parts = Annotated[Service, Depends(parts)]
Manager = Annotated[ContextManager, Depends(manager)]
JsonBody = Annotated[Body, Depends(body)]
OptionalBody = Annotated[Body, Depends(body_or_none)]


async def threaded(service: Service, work: Callable[[], Made]) -> Made:
    """Run the manager's work in the service's threads."""
    return await asyncio.get_running_loop().run_in_executor(service.threads, work)


def shaped(shape: type[Shape], sent: Body) -> Shape:
    """The body as a typed value.

    Raises:
        InvalidInput: it has another shape; names the first member at fault.
    """
    try:
        return shape.model_validate_json(sent.content)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(map(str, mistake["loc"])) or None
        raise InvalidInput(f"{param}: {mistake['msg']}" if param else mistake["msg"], param=param) from error


def documented(shape: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of a body that `shaped` reads."""
    schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def as_json(content: Any, status: int = 200) -> Response:
    """A response; `msgspec.Raw` members keep their bytes."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")
