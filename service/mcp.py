"""`/mcp`: the memories of one user over MCP, stateless, so that any gateway process may answer any request.

The key says the tenant and the header `x-ctxmem-user` the user. Both stand in the client's configuration; no tool takes
them, so a model that was talked into asking for another's memories has no way to say so.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ctxmem.errors import CtxmemError, InvalidInput, NotFound
from service import errors
from service.respond import refuse, respond
from service.wiring import Service

PATH = "/mcp"
USER = b"x-ctxmem-user"


class McpPlane:
    """The ASGI app."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message of a client."""
        if scope["method"] != "POST":  # there are no sessions to stream to or to end
            message = f"Method Not Allowed: {scope['method']} {PATH}"
            body = errors.error_object(message, kind="invalid_request_error", code="method_not_allowed")
            await respond(send, 405, body, headers=[(b"allow", b"POST")])
            return
        try:
            headers = dict(scope["headers"])
            app = self._app(self._service.tenants.of(headers), headers.get(USER, b"").decode("utf-8", "replace"))
        except CtxmemError as error:
            await refuse(send, error)
            return
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    def _app(self, tenant: str, user: str) -> Starlette:
        if not user:
            raise InvalidInput("say whose memories: send the header x-ctxmem-user", param="x-ctxmem-user")
        try:
            from mcp.server.transport_security import TransportSecuritySettings

            from ctxmem.agents.mcp import build_server
        except ImportError as error:
            raise NotFound(f'{PATH} needs mcp: pip install "ctxmem[mcp]"') from error
        server = build_server(self._service.manager.for_tenant(tenant), user=user)
        checked = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the key was checked, see `auth`
        limit = self._service.settings.max_body_bytes
        return server.streamable_http_app(
            stateless_http=True, json_response=True, max_request_body_size=limit, transport_security=checked
        )
