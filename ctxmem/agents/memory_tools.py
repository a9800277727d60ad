"""Long-term memories as tools of an agent, for every framework that makes tools of functions.

Whose memories these are is fixed when the tools are made. None takes a tenant, a user or a session, so a model that was
talked into asking for another's memories has no way to say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctxmem.errors import NotFound
from ctxmem.manager import ContextManager
from ctxmem.manager.reversible import Reversible
from ctxmem.memories import Memories, Scope, Wanted
from ctxmem.memory import Memory


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


def _shown(memory: Memory) -> dict[str, Any]:
    return {
        "id": memory.id,
        "memory": memory.text,
        "status": memory.status,
        "valid_from": memory.valid_from,
        "valid_to": memory.valid_to,
    }
