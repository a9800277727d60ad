"""ctxmem in a chain of LangChain's: messages in, the messages that fit out; and memories as tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    from langchain_core.messages import BaseMessage, MessageLikeRepresentation, convert_to_messages
    from langchain_core.prompt_values import PromptValue
    from langchain_core.runnables import RunnableConfig, RunnableSerializable
    from langchain_core.tools import BaseTool, StructuredTool
except ImportError as error:
    raise ImportError(
        'ctxmem.agents.langchain_context needs langchain-core: pip install "ctxmem[langchain]"'
    ) from error

from ctxmem.agents.fitting import Fitting
from ctxmem.agents.langchain_messages import from_chat, to_chat
from ctxmem.agents.memory_tools import Tools
from ctxmem.errors import InvalidInput
from ctxmem.ids import item_of_event
from ctxmem.manager import ContextManager
from ctxmem.memories import Scope

Said = str | PromptValue | Sequence[MessageLikeRepresentation]
"""What a chat model of LangChain's takes."""


class CtxMemContext(RunnableSerializable[Said, list[BaseMessage]]):
    """The context that fits, as a step of a chain: `prompt | CtxMemContext(manager=manager, budget=2000) | model`.

    Every message is logged; what is sent are the very objects that came in, copies where something was shortened. The
    session is the setting's, else `config["configurable"]["session_id"]`, else the history finds it. Answers are
    learnt from the next call's history.

    Attributes:
        manager: a `ContextManager`.
        budget: prompt tokens allowed; None for the model's window.
        model: target model, whose tokenizer counts.
        policy: name of the policy.
        session: the session.
        user: whose session it is.

    Raises:
        ValidationError: there is no manager.
    """

    manager: Any
    budget: int | None = None
    model: str = ""
    policy: str | None = None
    session: str | None = None
    user: str = ""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not isinstance(self.manager, ContextManager):
            raise InvalidInput(f"manager must be a ContextManager, got {type(self.manager).__name__}", param="manager")

    def invoke(self, input: Said, config: RunnableConfig | None = None, **kwargs: Any) -> list[BaseMessage]:
        """The messages to send.

        Raises:
            InvalidInput: what a chat model would not take either.
            BudgetError: what must stay does not fit.
        """
        del kwargs
        given = [(message, to_chat(message)) for message in _messages(input)]
        named = ((config or {}).get("configurable") or {}).get("session_id")
        fitting = Fitting(self.manager, self.budget, self.policy, self.session or named, self.user)
        prepared = fitting.build([parsed for _, parsed in given], model=self.model)
        return from_chat(prepared.messages, given, lambda event: self.manager.original(item_of_event(event)))


def _messages(said: Said) -> list[BaseMessage]:
    """The conversation in any form that LangChain's chat models take."""
    if isinstance(said, PromptValue):
        return said.to_messages()
    if isinstance(said, Mapping):
        raise InvalidInput("no conversation: one mapping; give a list of them", param="input")
    try:
        return convert_to_messages([said] if isinstance(said, str) else said)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidInput(f"no conversation: {error}", param="input") from error


def memory_tools(manager: ContextManager, user: str, *, agent: str = "") -> list[BaseTool]:
    """Tools over one user's long-term memories, for `create_agent(model, tools=[*memory_tools(manager, "ada")])`.

    They are `add_memory`, `search_memory`, `list_memories`, `update_memory` and `delete_memory`. Whose memories they
    are no call can say.

    Args:
        manager: whose tenant's memories.
        user: whose.
        agent: only those told to this agent; empty for all of the user's.

    Raises:
        InvalidInput: nobody is named.
    """
    who = Scope(user, agent)
    manager.memories.list(who, limit=1)  # refuses an empty scope before a model is given the tools
    tools = Tools(manager, who)
    given = (
        tools.add_memory,
        tools.search_memory,
        tools.list_memories,
        tools.update_memory,
        tools.delete_memory,
    )
    return [StructuredTool.from_function(function, handle_tool_error=True) for function in given]
