"""Messages as JSON to `Message` and back. The bytes that came are the bytes that go, unless a text was edited.

Reads OpenAI chat's messages, Anthropic's, and the items of OpenAI Responses. Knows no budgets, sessions or HTTP.
Source of the shapes: OpenAI's published API specification, `ChatCompletionRequestMessage`; the Anthropic SDK's
`MessageParam`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from ctxmem import blocks, items
from ctxmem.errors import InvalidInput
from ctxmem.types import Message, Part, SegmentKind

ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
SYSTEM_ROLES = frozenset({"developer", "system"})
_NOT_IDENTITY = frozenset({"cache_control", "prompt_cache_breakpoint"})
_NOT_SAID = frozenset({"id", "status"})
_A_MESSAGE = ("type", "message")

Wire = Mapping[str, Any]
"""A message as decoded JSON."""


def parse(source: bytes | Wire, *, param: str = "messages") -> Message:
    """Read one message.

    Args:
        source: its JSON bytes, which are kept, or the decoded object, which is dumped.
        param: where it stood, for the error.

    Raises:
        InvalidInput: not JSON, not an object, unknown role, or content of the wrong type.
    """
    raw = source if isinstance(source, bytes) else dump(source, param=param)
    wire = decode(raw, param=param)
    if items.is_item(wire):
        return items.parse(wire, raw)
    role = wire.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(sorted(ROLES))
        raise InvalidInput(f"{param}.role must be one of {known}; got {role!r}", param=f"{param}.role")
    calls = wire.get("tool_calls") or []
    content = _content_parts(wire.get("content"), param)
    parts = [*content, *_call_parts(calls, wire.get("function_call"), param)]
    answered = blocks.answers(wire.get("content"))
    results = bool(answered) and role == "user" and all(part.kind != "text" for part in content)
    return Message(
        role="tool" if results else role,
        parts=tuple(parts) or (Part("text", ""),),
        name=_optional_text(wire, "name", param),
        tool_call_id=_optional_text(wire, "tool_call_id", param),
        tool_call_ids=(*(str(call.get("id", "")) for call in calls), *blocks.calls(wire.get("content"))),
        raw=raw,
        answers=answered,
        native=any(part.kind in ("tool_result", "sealed") for part in parts) or len(parts) > len(content) + 1,
    )


def decode(raw: bytes, *, param: str = "messages") -> dict[str, Any]:
    """The JSON object in `raw`.

    Raises:
        InvalidInput: not UTF-8, not JSON, nested too deep, or not an object.
    """
    try:
        wire = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{param} is not valid JSON: {error}", param=param) from error
    if not isinstance(wire, dict):
        raise InvalidInput(f"{param} must be an object, got {type(wire).__name__}", param=param)
    return wire


def dump(wire: Wire, *, param: str = "messages") -> bytes:
    """Compact UTF-8 JSON of a message, as the official SDKs send it.

    Raises:
        InvalidInput: something in it has no JSON form, such as bytes, NaN or a lone surrogate.
    """
    if not isinstance(wire, Mapping):
        raise InvalidInput(f"{param} must be an object, got {type(wire).__name__}", param=param)
    try:
        text = json.dumps(dict(wire), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{param} has no JSON form: {error}", param=param) from error


def parse_all(messages: Sequence[bytes | Wire | Message]) -> tuple[Message, ...]:
    """Read a list of messages.

    Raises:
        InvalidInput: it is not a list, or a message is wrong; `param` says which.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise InvalidInput(f"messages must be a list, got {type(messages).__name__}", param="messages")
    return tuple(
        message if isinstance(message, Message) else parse(message, param=f"messages[{i}]")
        for i, message in enumerate(messages)
    )


def dump_all(objects: Sequence[Wire], *, param: str = "tools") -> bytes:
    """Compact JSON array of objects.

    Raises:
        InvalidInput: it is not a list of objects with a JSON form.
    """
    if isinstance(objects, str | bytes | Mapping) or not isinstance(objects, Sequence):
        raise InvalidInput(f"{param} must be a list, got {type(objects).__name__}", param=param)
    return b"[" + b",".join(dump(wire, param=f"{param}[{i}]") for i, wire in enumerate(objects)) + b"]"


def reply(answer: str | Wire) -> Wire:
    """The assistant message in a text, a message or a whole chat completion.

    Raises:
        InvalidInput: there is none in it.
    """
    if isinstance(answer, str):
        return {"role": "assistant", "content": answer}
    dumped = answer.model_dump(exclude_none=True) if hasattr(answer, "model_dump") else answer
    if isinstance(dumped, Mapping) and dumped.get("choices"):
        dumped = dumped["choices"][0].get("message")
    if not isinstance(dumped, Mapping):
        raise InvalidInput("reply must be a text, a message or a chat completion", param="reply")
    return {"role": "assistant", **dumped}


def build(role: str, text: str, *, id: str = "", kind: SegmentKind | None = None) -> Message:
    """A new message with one text."""
    return Message(role, (Part("text", text),), id=id, raw=dump({"role": role, "content": text}), kind=kind)


def edit(message: Message, texts: Sequence[str | None]) -> Message:
    """The message with new texts, everything else of its JSON as it was.

    Args:
        message: what came.
        texts: one per part: the new text, or None to take a content part out. Parts that are not text stay as they are.
    """
    parts = tuple(replace(part, text=text) for part, text in zip(message.parts, texts, strict=True) if text is not None)
    if parts == message.parts:
        return message
    wire = decode(message.raw or b"{}")
    content = wire.get("content")
    if items.is_item(wire):
        wire = items.edited(wire, texts)
    elif isinstance(content, list):
        wire["content"] = blocks.edited(content, texts)
    else:
        wire["content"] = texts[0] or ""
    return replace(message, parts=parts, raw=dump(wire))


def identity(raw: bytes) -> bytes:
    """A 16-byte name of what a message says, the same for the forms one client or SDK may give it.

    Nulls, empty lists and objects, cache marks and key order do not count, a list of one text part equals that text,
    and an answer may lose the white space around it: SDKs and apps do all this when they send an answer back. Nor do
    the id and the status that a server gave an item count; an item of type `message` equals a plain message.
    """
    wire = {key: _said(value) for key, value in decode(raw).items() if key not in _NOT_IDENTITY}
    if wire.get("type", "reasoning") != "reasoning":
        wire = {
            key: value for key, value in wire.items() if (key, value) != ("type", "message") and key not in _NOT_SAID
        }
    if wire.get("role") == "assistant" and isinstance(wire.get("content"), str):
        wire["content"] = wire["content"].strip()
    wire = {key: value for key, value in wire.items() if value not in (None, "", [], {})}
    text = json.dumps(wire, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return blake2b(text.encode(), digest_size=16).digest()


def _said(value: Any) -> Any:
    """The value without cache marks and null members; a single plain text part becomes its text."""
    if isinstance(value, dict):
        kept = {key: _said(member) for key, member in value.items() if key not in _NOT_IDENTITY}
        return {key: member for key, member in kept.items() if member not in (None, "", [], {})}
    if isinstance(value, list):
        members = [_said(member) for member in value]
        if len(members) == 1 and isinstance(members[0], dict) and members[0].keys() == {"type", "text"}:
            return members[0]["text"]
        return members
    return value


def _content_parts(content: Any, param: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", content)]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidInput(f"{param}.content must be a string, null or a list of parts", param=f"{param}.content")
    return blocks.parts(content)


def _call_parts(calls: Any, function_call: Any, param: str) -> list[Part]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise InvalidInput(f"{param}.tool_calls must be a list of objects", param=f"{param}.tool_calls")
    made = calls or function_call
    return [Part("tool_call", json.dumps(made, ensure_ascii=False))] if made else []


def _optional_text(wire: Wire, key: str, param: str) -> str | None:
    value = wire.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{param}.{key} must be a string", param=f"{param}.{key}")
    return value
