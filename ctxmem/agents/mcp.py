"""An MCP server over long-term memories: over stdio for an agent of this machine, or at `/mcp` for many.

Whose memories these are is fixed when the server is made. No tool takes a tenant, a user or a session, so a model that
was talked into asking for another's memories has no way to say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as error:
    raise ImportError('ctxmem.agents.mcp needs mcp: pip install "ctxmem[mcp]"') from error

from ctxmem.errors import CtxmemError, NotFound
from ctxmem.manager import ContextManager
from ctxmem.manager.reversible import Reversible
from ctxmem.memories import Memories, Scope, Wanted
from ctxmem.memory import Memory

T = TypeVar("T")

_ABOUT = (
    "Long-term memories of one user. Search before you answer what an earlier conversation may have settled; add what "
    "will matter later, one plain statement at a time."
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools, each a few lines over the library; sync, since all work is.

    Attributes:
        manager: whose tenant's memories these are.
        who: the scope of every call.
    """

    manager: ContextManager
    who: Scope

    @property
    def _memories(self) -> Memories:
        return self.manager.memories

    def add_memory(self, text: str) -> dict[str, Any]:
        """Keep what will matter in later conversations, word for word. Gives what became of each statement."""
        told = self._memories.add(text, self.who)
        return {"results": [{"id": one.id, "memory": one.text, "event": one.event} for one in told.results]}

    def search_memory(self, query: str, top_k: int = 5) -> dict[str, Any]:
        """Find the memories that answer a question, best first."""
        found = self._memories.search(query, self.who, Wanted(top_k=top_k))
        return {"results": [{**_shown(hit.memory), "score": round(hit.score, 4)} for hit in found.hits]}

    def list_memories(self, limit: int = 100, after: str = "") -> dict[str, Any]:
        """List memories, superseded ones included; pass the last id as `after` for the next page."""
        listed = self._memories.list(self.who, after=after, limit=max(1, min(limit, 1000)))
        return {"results": [_shown(one) for one in listed]}

    def update_memory(self, memory_id: str, text: str) -> dict[str, Any]:
        """Put a memory right; its history keeps what it said before."""
        return _shown(self._memories.update(self._own(memory_id).id, text))

    def delete_memory(self, memory_id: str) -> dict[str, Any]:
        """Delete a memory for good."""
        self._memories.delete(self._own(memory_id).id)
        return {"deleted": memory_id}

    def restore(self, handle: str) -> str:
        """Bring back the original of a text that was shortened, by the handle in its mark, such as ctx:0f3a..."""
        return Reversible.of(self.manager).answer({"handle": handle})

    def _own(self, memory_id: str) -> Memory:
        """The memory, when it is within the scope.

        Raises:
            NotFound: there is none, or it is another's: which of both is not told.
        """
        found = self._memories.get(memory_id)
        wanted = (self.who.user_id, self.who.agent_id, self.who.session_id)
        has = (found.user_id, found.agent_id, found.session_id)
        if any(want and want != got for want, got in zip(wanted, has, strict=True)):
            raise NotFound(f"no memory {memory_id!r}")
        return found


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


def _shown(memory: Memory) -> dict[str, Any]:
    return {
        "id": memory.id,
        "memory": memory.text,
        "status": memory.status,
        "valid_from": memory.valid_from,
        "valid_to": memory.valid_to,
    }
