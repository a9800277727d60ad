"""Anthropic Messages. Source of the shapes: the Anthropic SDK, `MessageParam`, `RawMessageStreamEvent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ctxmem import blocks
from ctxmem.wires.completion import Answer, usage_of
from ctxmem.wires.splice import Body
from ctxmem.wires.sse import events

ENDINGS = (b"event: message_stop", b"event:message_stop")
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class _Said(msgspec.Struct):
    """What counts of a message that was not streamed."""

    content: msgspec.Raw = msgspec.Raw(b"null")
    role: str = ""
    usage: Any = None


def read(body: bytes) -> Answer:
    """The answer in a message that was not streamed; nothing when the body is none."""
    try:
        said = msgspec.json.decode(body, type=_Said)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Answer(complete=False)
    content = bytes(said.content)
    if said.role != "assistant" or content in (b"null", b"[]"):
        return Answer(complete=False, usage=usage_of(said.usage))
    return Answer((_message(content),), usage=usage_of(said.usage))


def assemble(stream: bytes) -> Answer:
    """What the events of a stream said; complete when `message_stop` came and no error."""
    content: dict[int, dict[str, Any]] = {}
    usage: dict[str, int] = {}
    ended, failed = False, False
    for payload in events(stream):
        event = _decoded(payload)
        kind = event.get("type")
        _TAKE.get(str(kind), _pass)(content, event)
        told = event.get("message", event)
        usage |= usage_of(told.get("usage")) if isinstance(told, dict) else {}
        ended, failed = ended or kind == "message_stop", failed or kind == "error"
    said = [_closed(content[index]) for index in sorted(content)]
    messages = (_message(msgspec.json.encode(said)),) if said else ()
    return Answer(messages, complete=bool(said) and ended and not failed, usage=usage)


def aside(body: Body) -> str:
    """The provider edits or holds the history itself: `context_management`, or compacted blocks in the messages."""
    managed = body.fields.get("context_management", b"null") not in (b"null", b"{}", b'{"edits":[]}')
    raw = body.fields.get("messages", b"")
    compacted = b'"compaction"' in raw and any(blocks.holds_history(m.get("content")) for m in _objects(raw))
    return "provider_history" if managed or compacted else ""


@lru_cache(maxsize=64)
def tools(raw: bytes) -> bytes:
    """Tools as chat writes them; the provider's own tools by their name alone."""
    return msgspec.json.encode(
        [
            {
                "type": "function",
                "function": {
                    "name": tool.get("name", tool.get("type", "")),
                    "description": tool.get("description", ""),
                    "parameters": tool.get("input_schema", {}),
                },
            }
            for tool in _objects(raw)
        ]
    )


def plain(raw: bytes) -> bytes:
    """A message that ctxmem made: the conversation has no system role, so the user says it."""
    made = b'{"role":"system",'
    return b'{"role":"user",' + raw.removeprefix(made) if raw.startswith(made) else raw


def _message(content: bytes) -> bytes:
    return b'{"role":"assistant","content":' + content + b"}"


def _pass(content: dict[int, dict[str, Any]], event: Mapping[str, Any]) -> None:
    """An event that adds nothing to the content."""


def _start(content: dict[int, dict[str, Any]], event: Mapping[str, Any]) -> None:
    block = event.get("content_block")
    content[_index(event)] = dict(block) if isinstance(block, dict) else {}


def _delta(content: dict[int, dict[str, Any]], event: Mapping[str, Any]) -> None:
    block, delta = content.get(_index(event)), event.get("delta")
    if block is None or not isinstance(delta, dict):
        return
    kind = str(delta.get("type"))
    if kind in _TEXTS:
        name = _TEXTS[kind]
        block[name] = str(block.get(name) or "") + str(delta.get(name, ""))
    elif kind == "input_json_delta":
        block["~json"] = block.get("~json", "") + str(delta.get("partial_json", ""))
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
    else:
        block.update({key: value for key, value in delta.items() if key != "type"})


_TAKE: Mapping[str, Callable[[dict[int, dict[str, Any]], Mapping[str, Any]], None]] = {
    "content_block_start": _start,
    "content_block_delta": _delta,
}


def _closed(block: dict[str, Any]) -> dict[str, Any]:
    """The block with the JSON that came in pieces as its input."""
    pieces = block.pop("~json", None)
    if not pieces:
        return block
    try:
        return {**block, "input": msgspec.json.decode(pieces.encode())}
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return block


def _objects(raw: bytes) -> list[dict[str, Any]]:
    try:
        members = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return []
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _decoded(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
