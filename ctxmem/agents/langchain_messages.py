"""LangChain's messages as chat's JSON, and back to the very objects that they came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ctxmem import chat
from ctxmem.errors import InvalidInput
from ctxmem.types import Message

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "function"}


def to_chat(message: BaseMessage) -> Message:
    """A message in chat's shape; content blocks go as they are.

    Raises:
        InvalidInput: a kind of message that no model takes, or content that has no JSON form.
    """
    kind = message.type.removesuffix("MessageChunk").lower()
    role = _ROLES.get(kind) or (getattr(message, "role", "") if kind == "chat" else "")
    if not role:
        raise InvalidInput(f"messages of type {message.type!r} are no part of a conversation", param="messages")
    wire: dict[str, Any] = {"role": role, "content": _content(message)}
    if message.name:
        wire["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        wire["tool_calls"] = [_call(call) for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        wire["tool_call_id"] = message.tool_call_id
    return chat.parse(wire)


def from_chat(
    sent: Sequence[Message], given: Sequence[tuple[BaseMessage, Message]], original: Callable[[str], bytes]
) -> list[Any]:
    """What is sent, as LangChain's messages: the very objects given, copies where something was edited.

    Args:
        sent: the messages to send, each with the id of its event.
        given: the conversation, each message with its chat form.
        original: the JSON of an event as it first came.
    """
    untouched: dict[bytes, list[BaseMessage]] = {}
    for message, parsed in given:
        untouched.setdefault(parsed.raw or b"", []).append(message)
    by_name = {chat.identity(parsed.raw or b"{}"): message for message, parsed in given}
    found: list[Any] = []
    for one in sent:
        same = untouched.get(one.raw or b"")
        if same:
            found.append(same.pop(0) if len(same) > 1 else same[0])
        else:
            found.append(_edited(one, by_name.get(chat.identity(original(one.id)))))
    return found


def _edited(sent: Message, message: BaseMessage | None) -> BaseMessage:
    content = chat.decode(sent.raw or b"{}").get("content") or ""
    if message is not None:
        return message.model_copy(update={"content": content})
    return AIMessage(content=content) if sent.role == "assistant" else HumanMessage(content=content)


def _content(message: BaseMessage) -> Any:
    """The content; calls that also stand in it are given once, by the message."""
    if not isinstance(message.content, list):
        return message.content
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in message.content]
    return [block for block in blocks if block.get("type") not in ("tool_use", "function_call", "tool_call")]


def _call(call: Any) -> dict[str, Any]:
    arguments = json.dumps(call["args"], ensure_ascii=False, default=str)
    return {"id": call["id"] or "", "type": "function", "function": {"name": call["name"], "arguments": arguments}}
