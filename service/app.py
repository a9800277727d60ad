"""The gateway's ASGI app: data plane and health in raw ASGI, everything else in the control plane and in MCP's.

Those two are loaded by the first request for them: a gateway that only relays carries no web framework.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmem.wires.known import WIRES
from service import errors, health
from service.dataplane.chat import PREFIX
from service.respond import respond
from service.settings import Settings
from service.wiring import Service, service

TURNS = frozenset(PREFIX + path for path in WIRES)
MCP = "/mcp"
HEALTH: dict[str, Callable[[Service, Send], Awaitable[None]]] = {
    "/livez": health.livez,
    "/readyz": health.readyz,
    "/metrics": health.metrics,
}


class Gateway:
    """Tells the planes apart, starts and stops the service.

    Attributes:
        service: the parts it serves with.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._chat = service.chat()
        self._planes: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] in TURNS:
            if await self._only("POST", scope, send):
                await self._chat(scope, receive, send)
        elif scope["path"] in HEALTH:
            if await self._only("GET", scope, send):
                await HEALTH[scope["path"]](self.service, send)
        else:
            plane = "mcp" if scope["path"] == MCP else "control"
            if plane not in self._planes:
                load = {"mcp": self._mcp, "control": self._control}[plane]
                self._planes[plane] = await asyncio.get_running_loop().run_in_executor(self.service.threads, load)
            await self._planes[plane](scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.service.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _only(self, method: str, scope: Scope, send: Send) -> bool:
        """Whether the method is the one; others are refused."""
        if scope["method"] == method:
            return True
        message = f"Method Not Allowed: {scope['method']} {scope['path']}"
        body = errors.error_object(message, kind="invalid_request_error", code="method_not_allowed")
        await respond(send, 405, body, headers=[(b"allow", method.encode())])
        return False

    def _control(self) -> ASGIApp:
        from service.control import control_plane  # here, for the reason this module opens with

        return control_plane(self.service)

    def _mcp(self) -> ASGIApp:
        from service.mcp import McpPlane  # as above

        return McpPlane(self.service)


def create_app(settings: Settings) -> Gateway:
    """The app for these settings. The database is opened here, connections when the app starts.

    Raises:
        ConfigError: a key or a file that the settings name is not there.
        StoreError: the database cannot be opened.
    """
    return Gateway(service(settings))
