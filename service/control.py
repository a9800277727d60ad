"""The control plane: a FastAPI app over the routers, its errors as OpenAI error objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ctxmem import __version__
from ctxmem.errors import CtxmemError
from service import errors, routes
from service.wiring import Service


def control_plane(parts: Service) -> FastAPI:
    """The app over the service's parts."""
    # The pages that show the document fetch their scripts from elsewhere; the document itself stays.
    app = _Documented(title="ctxmem", version=__version__, docs_url=None, redoc_url=None)
    app.state.service = parts
    for router in routes.ALL:
        app.include_router(router)
    app.add_exception_handler(CtxmemError, _ours)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    return app


class _Documented(FastAPI):
    """Has the paths of the raw data plane in its OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["paths"].update(_RAW_PATHS)
        return document


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


def _header(name: str, description: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": kind}}


_TURN: dict[str, Any] = {
    "tags": ["chat"],
    "parameters": [
        _header("x-ctxmem-session", "the session; without it the history finds its own"),
        _header("x-ctxmem-user", "whose session it is"),
        _header("x-ctxmem-budget", "prompt tokens allowed", "integer"),
        _header("x-ctxmem-policy", "policy of this request"),
        _header("x-ctxmem-mode", "off, observe or on"),
    ],
    "responses": {"200": {"description": "what the upstream answered, byte for byte"}},
}


def _turn(summary: str, field: str | None) -> dict[str, Any]:
    """The entry of a route that takes a conversation in this field."""
    properties: dict[str, Any] = {"model": {"type": "string"}, "stream": {"type": "boolean"}}
    if field == "messages":
        properties["messages"] = {"type": "array", "items": {"type": "object"}, "minItems": 1}
    needed = ["model", field] if field else ["model"]
    schema = {"type": "object", "required": needed, "properties": properties}
    content = {"application/json": {"schema": schema}}
    return {"post": {**_TURN, "summary": summary, "requestBody": {"required": True, "content": content}}}


_RAW_PATHS: dict[str, Any] = {
    "/v1/chat/completions": _turn("Chat completion, as OpenAI's; streamed when the body says so", "messages"),
    "/v1/messages": _turn("Message, as Anthropic's; streamed when the body says so", "messages"),
    "/v1/messages/count_tokens": _turn("Tokens of a message request, as Anthropic's; passes through", None),
    "/v1/responses": _turn("Response, as OpenAI's; streamed when the body says so", None),
    "/v1/responses/compact": _turn("The provider's own compaction; passes through", None),
    "/v1/responses/input_tokens": _turn("Tokens of a response request; passes through", None),
    "/mcp": {
        "post": {
            "tags": ["memories"],
            "summary": "One user's memories over MCP (streamable HTTP, stateless)",
            "parameters": [_header("x-ctxmem-user", "whose memories; needed")],
            "responses": {"200": {"description": "a JSON-RPC answer"}},
        }
    },
    "/livez": {"get": {"tags": ["health"], "responses": {"200": {"description": "the process answers"}}}},
    "/readyz": {
        "get": {
            "tags": ["health"],
            "responses": {"200": {"description": "requests are served"}, "503": {"description": "they are not"}},
        }
    },
    "/metrics": {"get": {"tags": ["health"], "responses": {"200": {"description": "Prometheus text format"}}}},
}
"""Paths that FastAPI does not serve."""
