"""LangChain agents and LangGraph: the middleware that gives each model call the context that fits.

The request is shaped, the graph's state is not: every message stays in it, and in ctxmem's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import PrivateStateAttr
    from langchain_core.messages import AIMessage, SystemMessage
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langgraph.config import get_config
    from langgraph.types import Command
except ImportError as error:
    raise ImportError('ctxmem.agents.langgraph needs langchain: pip install "ctxmem[langgraph]"') from error

from ctxmem.agents.fitting import Fitting
from ctxmem.agents.langchain_messages import from_chat, to_chat
from ctxmem.ids import item_of_event
from ctxmem.manager import ContextManager, Prepared
from ctxmem.types import Budget


class CtxMemState(AgentState[Any]):
    """An agent's state with the account of its last model call, which callers do not see."""

    ctxmem_receipt: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]


@dataclass(frozen=True, slots=True)
class _Shaped:
    """A model call made to fit.

    Attributes:
        request: what the model gets.
        prepared: the account.
    """

    request: ModelRequest[Any]
    prepared: Prepared


class CtxMemMiddleware(AgentMiddleware[CtxMemState, Any, Any]):
    """Fits every model call of an agent into its budget: `create_agent(..., middleware=[CtxMemMiddleware(manager)])`.

    Put it last in the list, where it sees what the others added. Each call's receipt is in the graph's private state,
    under `ctxmem_receipt`, without its items; `manager.receipt` has them.
    """

    state_schema = CtxMemState

    def __init__(
        self,
        manager: ContextManager,
        *,
        budget: int | Budget | None = None,
        policy: str | None = None,
        session: str | None = None,
        user: str = "",
    ) -> None:
        """Make the middleware.

        Args:
            manager: builds the contexts and keeps the log.
            budget: prompt tokens allowed; None for the model's window, when its profile says it.
            policy: name of the policy.
            session: the session; None for the graph's `thread_id`, else the history finds it.
            user: whose session it is.
        """
        super().__init__()
        self._manager = manager
        self._fitting = Fitting(manager, Budget.of(budget), policy, session, user)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Call the model with the context that fits; log what it answers."""
        shaped = self._shaped(request, _thread())
        try:
            response = handler(shaped.request)
        except BaseException:
            self._manager.answer(shaped.prepared.request_id, None)
            raise
        return self._answered(shaped, response)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """The same, the work in a thread."""
        shaped = await asyncio.to_thread(self._shaped, request, _thread())
        try:
            response = await handler(shaped.request)
        except BaseException:
            self._manager.answer(shaped.prepared.request_id, None)
            raise
        return await asyncio.to_thread(self._answered, shaped, response)

    def _shaped(self, request: ModelRequest[Any], thread: str | None) -> _Shaped:
        head = [request.system_message] if request.system_message is not None else []
        given = [(message, to_chat(message)) for message in (*head, *request.messages)]
        tools = [convert_to_openai_tool(tool) for tool in request.tools]
        said = [parsed for _, parsed in given]
        window = _window(request.model)
        prepared = self._fitting.build(said, model=_model(request.model), tools=tools, session=thread, window=window)
        sent = from_chat(prepared.messages, given, lambda event_id: self._manager.original(item_of_event(event_id)))
        system = sent[0] if head and sent and isinstance(sent[0], SystemMessage) else None
        shown = sent[1:] if system is not None else sent
        return _Shaped(request.override(messages=shown, system_message=system), prepared)

    def _answered(self, shaped: _Shaped, response: ModelResponse[Any]) -> ExtendedModelResponse[Any]:
        raws = [to_chat(message).raw or b"{}" for message in response.result]
        account = shaped.prepared.receipt
        self._manager.answer(account.id, raws[0] if raws else None, raws[1:], usage=_usage(response))
        told = account.wire()
        del told["items"]
        return ExtendedModelResponse(model_response=response, command=Command(update={"ctxmem_receipt": told}))


def _thread() -> str | None:
    """The graph's `thread_id`; None outside of a graph or without a checkpointer."""
    try:
        thread = get_config().get("configurable", {}).get("thread_id")
    except RuntimeError:
        return None
    return str(thread) if thread is not None else None


def _model(model: Any) -> str:
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or "")


def _window(model: Any) -> Budget | None:
    """The budget that the model's profile gives, if it does."""
    tokens = (getattr(model, "profile", None) or {}).get("max_input_tokens")
    return Budget(tokens) if isinstance(tokens, int) and tokens > 0 else None


def _usage(response: ModelResponse[Any]) -> dict[str, int]:
    told = next((m.usage_metadata for m in response.result if isinstance(m, AIMessage) and m.usage_metadata), None)
    return {key: value for key, value in (told or {}).items() if isinstance(value, int)}
