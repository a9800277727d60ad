"""The gateway's ASGI app: the raw data plane, and the control plane beside it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ctxmem import __version__
from ctxmem.errors import CtxmemError
from service import errors, routes
from service.settings import Settings
from service.wiring import Service, service

_log = logging.getLogger("ctxmem.gateway")


def create_app(settings: Settings) -> FastAPI:
    """The app for these settings. The database is opened here, connections when the app starts.

    Raises:
        ConfigError: a key or a file that the settings name is not there.
        StoreError: the database cannot be opened.
    """
    return app_of(service(settings))


def app_of(parts: Service) -> FastAPI:
    """The app over parts that are already joined."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await parts.open()
        yield
        await parts.close()

    app = FastAPI(title="ctxmem", version=__version__, lifespan=lifespan)
    app.state.service = parts
    app.router.routes.insert(0, Route("/v1/chat/completions", parts.chat(), methods=["POST"]))
    for router in routes.ALL:
        app.include_router(router)
    app.add_exception_handler(CtxmemError, _ours)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    return app


async def _ours(request: Request, error: Exception) -> Response:
    """An error raised on purpose, by the table."""
    answer = errors.answer(error) if isinstance(error, CtxmemError) else errors.answer(CtxmemError(str(error)))
    return _response(answer.status, answer.body, answer.headers)


async def _malformed(request: Request, error: Exception) -> Response:
    """Query or path arguments of the wrong type."""
    mistakes = error.errors() if isinstance(error, RequestValidationError) else []
    first = mistakes[0] if mistakes else {"loc": (), "msg": str(error)}
    param = ".".join(str(place) for place in first["loc"][1:]) or None
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    body = errors.error_object(message, kind="invalid_request_error", code="invalid_request", param=param)
    return _response(400, body)


async def _http(request: Request, error: Exception) -> Response:
    """No such path or method."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    message = f"{detail}: {request.method} {request.url.path}"
    return _response(status, errors.error_object(message, kind="invalid_request_error", code=code))


async def _unexpected(request: Request, error: Exception) -> Response:
    """A bug: the server logs it, the client learns nothing of its inside."""
    return _response(500, errors.error_object("Internal error.", kind="server_error", code="internal_error"))


def _response(status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, headers=named, media_type="application/json")
