"""PydanticAI: a capability that fits each model request into its budget, and a conversation store in our database.

The request is shaped, the run's history is not: every message stays in it, and in ctxmem's log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

try:
    from pydantic_ai import RunContext
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserPromptPart,
    )
    from pydantic_ai.models import ModelRequestContext
    from pydantic_core import to_jsonable_python
except ImportError as error:
    raise ImportError('ctxmem.agents.pydantic_ai needs pydantic-ai-slim: pip install "ctxmem[pydantic-ai]"') from error

from ctxmem import chat
from ctxmem.agents.fitting import Fitting
from ctxmem.ids import item_of_event
from ctxmem.manager import ContextManager
from ctxmem.types import Budget, Message


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where a chat message stands in the run's history.

    Attributes:
        message: the run's message.
        part: its part; None for a response, which is one chat message as a whole.
        parsed: the chat message.
    """

    message: ModelMessage
    part: Any
    parsed: Message


@dataclass
class CtxMemCapability(AbstractCapability[Any]):
    """Fits every model request of an agent: `Agent(model, capabilities=[CtxMemCapability(manager, budget=4096)])`.

    Attributes:
        manager: builds the contexts and keeps the log.
        budget: prompt tokens allowed, instructions and function tools included; None for the model's window.
        policy: name of the policy.
        session: the session in the log; None lets the history find it.
        user: whose session it is.
    """

    manager: ContextManager
    budget: int | Budget | None = None
    policy: str | None = None
    session: str | None = None
    user: str = ""

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """The request with the messages that fit; a call and its result leave together or stay together.

        Raises:
            InvalidInput: content that has no JSON form.
            BudgetError: what must stay does not fit.
        """
        messages = await asyncio.to_thread(self._shaped, request_context)
        return replace(request_context, messages=messages)

    def _shaped(self, request: ModelRequestContext) -> list[ModelMessage]:
        told = request.model_request_parameters
        instructions = "\n\n".join(part.content for part in told.instruction_parts or [])
        head = [chat.parse({"role": "system", "content": instructions})] if instructions else []
        seats = [seat for message in request.messages for seat in _seats(message)]
        tools = [_tool(tool) for tool in [*told.function_tools, *told.output_tools]]
        fitting = Fitting(self.manager, self.budget, self.policy, self.session, self.user)
        said = [*head, *(seat.parsed for seat in seats)]
        sent = fitting.build(said, model=request.model.model_name, tools=tools).messages
        return list(_joined(self._placed(sent[1:] if head else sent, seats)))

    def _placed(self, sent: Sequence[Message], seats: Sequence[_Seat]) -> Iterator[tuple[ModelMessage, Any]]:
        """Each message that is sent as the run's message and its part: the objects given where nothing was edited."""
        untouched: dict[bytes, list[_Seat]] = {}
        for seat in seats:
            untouched.setdefault(seat.parsed.raw or b"", []).append(seat)
        named = {chat.identity(seat.parsed.raw or b"{}"): seat for seat in seats}
        for one in sent:
            same = untouched.get(one.raw or b"")
            if same:
                seat = same.pop(0)
                yield seat.message, seat.part
                continue
            content = chat.decode(one.raw or b"{}").get("content") or ""
            found = named.get(chat.identity(self.manager.original(item_of_event(one.id))))
            yield _edited(one, content, found)


def _edited(one: Message, content: Any, seat: _Seat | None) -> tuple[ModelMessage, Any]:
    """A message with other words; one of our own where the run has none."""
    if seat is not None and seat.part is not None:
        return seat.message, _with(seat.part, content)
    if seat is not None and isinstance(seat.message, ModelResponse):
        others = [part for part in seat.message.parts if not isinstance(part, TextPart)]
        return replace(seat.message, parts=[*([TextPart(content)] if content else []), *others]), None
    if one.role == "assistant":
        return ModelResponse(parts=[TextPart(content)]), None
    part = UserPromptPart(content)
    return ModelRequest(parts=[part]), part


def _with(part: Any, content: Any) -> Any:
    """A copy of a part; of a demand to try again, whose words are made from more, a result that says the same."""
    if part.part_kind == "retry-prompt":
        return ToolReturnPart(part.tool_name, content, tool_call_id=part.tool_call_id, outcome="retried")
    return replace(part, content=content)


def _joined(placed: Iterator[tuple[ModelMessage, Any]]) -> Iterator[ModelMessage]:
    """The run's messages again, each with those of its parts that are sent."""
    open_: Any = None
    parts: list[Any] = []
    for message, part in [*placed, (None, None)]:
        if open_ is not None and (message is not open_ or part is None):
            same = len(parts) == len(open_.parts) and all(a is b for a, b in zip(parts, open_.parts, strict=True))
            yield open_ if same else replace(open_, parts=parts)
            open_, parts = None, []
        if message is not None and part is None:
            yield message
        elif part is not None:
            open_ = message
            parts.append(part)


def _seats(message: ModelMessage) -> Iterator[_Seat]:
    if isinstance(message, ModelResponse):
        yield _Seat(message, None, chat.parse(_answer(message)))
        return
    for part in message.parts:
        yield _Seat(message, part, chat.parse(_asked(part)))


def _answer(message: ModelResponse) -> dict[str, Any]:
    """A response in chat's shape; parts that are neither text nor calls ride with it and are not shown."""
    text = "\n\n".join(part.content for part in message.parts if isinstance(part, TextPart))
    calls = [
        {"id": p.tool_call_id, "type": "function", "function": {"name": p.tool_name, "arguments": p.args_as_json_str()}}
        for p in message.parts
        if isinstance(p, ToolCallPart)
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


def _asked(part: Any) -> dict[str, Any]:
    """A part of a request in chat's shape; a call's result may also be the demand to try again."""
    if isinstance(part, ToolReturnPart):
        return {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.model_response_str()}
    if part.part_kind == "retry-prompt" and part.tool_name:
        return {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.model_response()}
    content = getattr(part, "content", None)
    role = "system" if isinstance(part, SystemPromptPart) else "user"
    if isinstance(content, str):
        return {"role": role, "content": content}
    blocks = [_block(item) for item in content] if isinstance(content, Sequence) else [_block(part)]
    return {"role": role, "content": blocks}


def _block(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    plain = to_jsonable_python(item, bytes_mode="base64", serialize_unknown=True)
    return plain if isinstance(plain, dict) and "type" in plain else {"type": "attachment", "of": plain}


def _tool(tool: Any) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters_json_schema}
    return {"type": "function", "function": json.loads(json.dumps(described, default=str))}
