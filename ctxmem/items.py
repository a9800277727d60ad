"""Items of OpenAI Responses that are no messages: tool calls, their outputs, reasoning, and what a server adds.

Source of the shapes: OpenAI's published API specification, `InputItem` and `OutputItem`. An item of unknown type is
kept or left out as it came, never edited.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctxmem import blocks
from ctxmem.types import Message, Part

_CALLS = frozenset({"function_call", "custom_tool_call"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_NAMES = {"mcp_approval_request": "id", "mcp_approval_response": "approval_request_id"}
"""Which field links a call and its answer, where it is not `call_id`."""

Item = Mapping[str, Any]
"""An item as decoded JSON."""


def is_item(wire: Item) -> bool:
    """Whether a message's JSON is an item without a role."""
    return "role" not in wire and isinstance(wire.get("type"), str)


def parse(item: Item, raw: bytes) -> Message:
    """Read an item. What the model said stays together with what it said just before; see `Message.bound`."""
    kind = item["type"]
    link = item.get(_NAMES.get(kind, "call_id"))
    link = link if isinstance(link, str) else None
    if kind in _OUTPUTS:
        return Message("tool", tuple(_output(item.get("output"))), tool_call_id=link, raw=raw, native=True)
    if kind.endswith(("_output", "_response")):
        return Message("tool", (_whole(item),), tool_call_id=link, raw=raw, native=True)
    made = (link,) if link is not None else ()
    part = _whole(item)
    if kind in _CALLS:
        arguments = item.get("arguments", item.get("input"))
        part = Part("tool_call", blocks.called(link, item.get("name"), arguments))
    return Message("assistant", (part,), tool_call_ids=made, raw=raw, native=True, bound=True)


def edited(item: Item, texts: Sequence[str | None]) -> dict[str, Any]:
    """The item with another output, everything else as it was; see `blocks.edited`."""
    if item.get("type") not in _OUTPUTS:
        return dict(item)
    output = item.get("output")
    if isinstance(output, list):
        return {**item, "output": blocks.edited(output, texts)}
    return {**item, "output": texts[0]} if isinstance(output, str) else dict(item)


def _output(output: Any) -> list[Part]:
    if isinstance(output, list) and all(isinstance(block, dict) for block in output):
        return blocks.parts(output) or [Part("text", "")]
    return [Part("text", output if isinstance(output, str) else json.dumps(output, ensure_ascii=False))]


def _whole(item: Item) -> Part:
    return Part("sealed", json.dumps(item, ensure_ascii=False))
