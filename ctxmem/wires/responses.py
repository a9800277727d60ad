"""OpenAI Responses. Source of the shapes: OpenAI's published API specification, `CreateResponse`, `Response`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from ctxmem import blocks
from ctxmem.wires.completion import Answer, usage_of
from ctxmem.wires.splice import Body
from ctxmem.wires.sse import events

_LAST = ("response.completed", "response.incomplete", "response.failed")
ENDINGS = tuple(b"event:" + blank + name.encode() for name in _LAST for blank in (b" ", b""))
_HELD = ("previous_response_id", "conversation", "context_management", "background")
_EMPTY = frozenset({b"null", b"[]", b"false", b'""'})


class _Response(msgspec.Struct):
    """What counts of a response."""

    output: list[msgspec.Raw] = []
    status: str | None = None
    usage: Any = None


class _Event(msgspec.Struct):
    """What counts of a streamed event."""

    type: str = ""
    response: msgspec.Raw = msgspec.Raw(b"null")
    item: msgspec.Raw = msgspec.Raw(b"null")


def read(body: bytes) -> Answer:
    """The answer in a response that was not streamed; nothing when the body is none."""
    try:
        response = msgspec.json.decode(body, type=_Response)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Answer(complete=False)
    items = tuple(bytes(item) for item in response.output)
    return _answer(items, complete=response.status in ("completed", None), usage=response.usage)


def assemble(stream: bytes) -> Answer:
    """The response in the last event; of a stream that was cut, the items that were done."""
    done: list[bytes] = []
    for payload in events(stream):
        try:
            event = msgspec.json.decode(payload, type=_Event)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if event.type in _LAST:
            whole = read(bytes(event.response))
            return whole if whole.messages else _answer(tuple(done), complete=False, usage=whole.usage)
        if event.type == "response.output_item.done":
            done.append(bytes(event.item))
    return _answer(tuple(done), complete=False, usage=None)


def aside(body: Body) -> str:
    """The provider holds the history, or edits it itself, or the prompt is stored there."""
    if any(body.fields.get(name, b"null") not in _EMPTY for name in _HELD):
        return "provider_history"
    raw = body.fields.get("input", b"null")
    if raw == b"null":
        return "no_input"
    held = b'"compaction"' in raw or b'"item_reference"' in raw
    return "provider_history" if held and blocks.holds_history(_decoded(raw)) else ""


@lru_cache(maxsize=64)
def tools(raw: bytes) -> bytes:
    """Tools as chat writes them; the provider's own tools by their type alone."""
    found = _decoded(raw)
    members = [tool for tool in found if isinstance(tool, dict)] if isinstance(found, list) else []
    named = [{"name": tool.get("type"), **{key: value for key, value in tool.items() if value}} for tool in members]
    return msgspec.json.encode(
        [
            {
                "type": "function",
                "function": {
                    key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None
                },
            }
            for tool in named
        ]
    )


def _answer(items: tuple[bytes, ...], *, complete: bool, usage: Any) -> Answer:
    return Answer(items[:1], complete=complete and bool(items), usage=usage_of(usage), more=items[1:])


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
