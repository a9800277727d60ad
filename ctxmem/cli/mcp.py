"""The command that serves one user's memories to agents that speak MCP."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from ctxmem.cli import output
from ctxmem.cli.options import Json, current
from ctxmem.errors import InvalidInput
from ctxmem.hosts import is_loopback


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command("mcp")(mcp)


def mcp(
    *,
    user: Annotated[str, typer.Option(help="Whose memories; no tool can ask for another's.")],
    session: Annotated[str, typer.Option(help="Only memories of this session.")] = "",
    tenant: Annotated[str, typer.Option(help="The tenant they belong to.")] = "default",
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Serve at /mcp there instead of over stdio.")] = "",
    json_: Json = False,
) -> None:
    """Serve the memories of one user over MCP, on standard input and output unless told otherwise."""
    from ctxmem.agents.mcp import build_server
    from ctxmem.manager import ContextManager

    current().data_dir.mkdir(parents=True, exist_ok=True)
    with closing(ContextManager(current().database, tenant=tenant)) as manager:
        server = build_server(manager, user=user, session=session)
        if not http:
            server.run("stdio")
            return
        host, port = _address(http)
        if json_:
            output.print_json({"url": f"http://{http}/mcp"})
        server.run("streamable-http", host=host, port=port)


def _address(http: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        InvalidInput: no such address, or one that other machines reach: whoever does could read and write.
    """
    host, _, port = http.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65_536:
        raise InvalidInput(f"--http takes HOST:PORT, got {http!r}", param="http")
    if not is_loopback(host):
        raise InvalidInput(f"{host!r} is open to other machines, and MCP asks for no key: use 127.0.0.1", param="http")
    return host, int(port)
