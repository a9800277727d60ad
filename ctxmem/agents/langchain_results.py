"""LangChain agents whose tools print too much: a result is shortened as it comes, and its original can be had again.

`CtxMemMiddleware` alone leaves the graph's state whole and shortens what a model is sent. This one keeps the state too,
and with it every checkpoint, small: what is left out of a result never enters it, but stays in ctxmem's database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ToolCallRequest
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import StructuredTool
    from langgraph.types import Command
except ImportError as error:
    raise ImportError('ctxmem.agents.langchain_results needs langchain: pip install "ctxmem[langgraph]"') from error

from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import InvalidInput
from ctxmem.manager import ContextManager
from ctxmem.manager.reversible import RESTORE_TOOL, TOOL, Reversible
from ctxmem.tokens.resolve import counter_for

Result = ToolMessage | Command[Any]


class CtxMemToolResults(AgentMiddleware[AgentState[Any], Any, Any]):
    """Tool results of at most so many tokens: `middleware=[CtxMemToolResults(manager, tokens=2000), ...]`.

    A longer one is shortened with a view to the newest question and ends with a mark; JSON stays JSON. The agent gets
    the tool `ctx_restore`, which gives the original back word for word. Results that are no text, and what
    `ctx_restore` brought back, stay as they are.
    """

    def __init__(self, manager: ContextManager, *, tokens: int, model: str = "") -> None:
        """Make the middleware.

        Args:
            manager: keeps the originals.
            tokens: most tokens of a result.
            model: target model, whose tokenizer counts; an upper estimate where it is not known.

        Raises:
            InvalidInput: fewer than 64 tokens, in which a mark would leave no room.
        """
        super().__init__()
        if tokens < 64:
            raise InvalidInput(f"a tool result needs at least 64 tokens, got {tokens}", param="tokens")
        self._reversible, self._tokens = Reversible.of(manager), tokens
        self._compressor = Compressor(counter_for(model), Lexical())
        told = str(RESTORE_TOOL["function"]["description"])
        self.tools = [StructuredTool.from_function(self._restore, name=TOOL, description=told)]

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Run the tool; shorten what it gives."""
        return self._shortened(request, handler(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """The same, the work in a thread."""
        return await asyncio.to_thread(self._shortened, request, await handler(request))

    def _shortened(self, request: ToolCallRequest, result: Result) -> Result:
        if not isinstance(result, ToolMessage) or request.tool_call["name"] == TOOL:
            return result
        if not isinstance(result.content, str) or result.status == "error":
            return result
        done = self._reversible.within(self._compressor, result.content, self._tokens, query=_asked(request.state))
        return result if done == result.content else result.model_copy(update={"content": done})

    def _restore(self, handle: str) -> str:
        return self._reversible.answer({"handle": handle})


def _asked(state: Any) -> str:
    """The newest question, if the state has messages."""
    messages = state.get("messages", []) if isinstance(state, dict) else getattr(state, "messages", [])
    return next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")
