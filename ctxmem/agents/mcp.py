"""An MCP server over long-term memories: over stdio for an agent of this machine, or at `/mcp` for many.

Whose memories these are is fixed when the server is made. No tool takes a tenant, a user or a session, so a model that
was talked into asking for another's memories has no way to say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as error:
    raise ImportError('ctxmem.agents.mcp needs mcp: pip install "ctxmem[mcp]"') from error

from ctxmem.agents.memory_tools import Tools
from ctxmem.errors import CtxmemError
from ctxmem.manager import ContextManager
from ctxmem.memories import Scope

T = TypeVar("T")

_ABOUT = (
    "Long-term memories of one user. Search before you answer what an earlier conversation may have settled; add what "
    "will matter later, one plain statement at a time."
)


def build_server(manager: ContextManager, *, user: str, agent: str = "", session: str = "") -> MCPServer:
    """The server; run it with `.run("stdio")`, or mount `.streamable_http_app()`, whose path is `/mcp`.

    Args:
        manager: keeps the memories; its tenant is the server's.
        user: whose memories.
        agent: only those told to this agent.
        session: only those of this session.

    Raises:
        InvalidInput: nobody is named.
    """
    who = Scope(user, agent, session)
    manager.memories.list(who, limit=1)  # refuses an empty scope before anything is served
    server = MCPServer("ctxmem", instructions=_ABOUT, log_level="WARNING")
    tools = Tools(manager, who)
    for tool in (
        tools.add_memory,
        tools.search_memory,
        tools.list_memories,
        tools.update_memory,
        tools.delete_memory,
        tools.restore,
    ):
        server.add_tool(_awaited(tool), name=tool.__name__, description=tool.__doc__)
    return server


def _awaited(tool: Callable[..., T]) -> Callable[..., Any]:
    """The tool, its work in a thread and our errors told to the model in words."""

    @wraps(tool)
    async def call(**arguments: Any) -> T:
        try:
            return await asyncio.to_thread(tool, **arguments)
        except CtxmemError as error:
            raise ToolError(str(error)) from error

    return call
