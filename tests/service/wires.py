"""What Anthropic and OpenAI Responses answer, whole and streamed, and the official clients to ask with."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai

HELLO = [{"role": "user", "content": "Wie spät ist es? 🕐"}]


def typed(*payloads: dict[str, Any]) -> bytes:
    """Events with their type on a line of its own, as both APIs send them."""
    return "".join(f"event: {p['type']}\ndata: {json.dumps(p, ensure_ascii=False)}\n\n" for p in payloads).encode()


def said(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    """An Anthropic message."""
    usage = {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
    told = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content)}
    return {**told, "stop_reason": stop, "stop_sequence": None, "usage": usage}


TEXT = {"type": "text", "text": "Halb drei. 🕝"}
THINKING = {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {"zone": "Europe/Berlin", "n": [1.0, 2]}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "time"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "t", "url": "https://x", "encrypted_content": "ZW4=", "page_age": None}
    ],
}
MESSAGES = {
    "text": said(TEXT),
    "thinking and a tool call": said(THINKING, REDACTED, CALL, stop="tool_use"),
    "a search of the server": said(SEARCH, FOUND, TEXT),
    "a refusal": said(TEXT, stop="refusal"),
}
USED = {"output_tokens": 9}
DELTAS = typed(
    {"type": "message_start", "message": {**said(), "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "look."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Halb "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "drei. 🕝"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {**CALL, "input": {}}},
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"zone": "Euro'},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": 'rope/Berlin"}'}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
)

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}
FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "clock", "arguments": '{"n": 1}'}
ANSWER = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Halb drei. 🕝", "annotations": []}],
}
UNKNOWN = {"type": "hologram_call", "id": "h_1", "status": "completed", "light": [1.50]}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An OpenAI response."""
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }
    told = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-x", "status": "completed"}
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "usage": usage}
    return {**told, **rest, "output": list(output), **more}


RESPONSES = {
    "text": response(ANSWER),
    "reasoning and a call": response(REASONING, FUNCTION),
    "an item nobody knows": response(UNKNOWN, ANSWER),
    "cut by length": response(ANSWER, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
}
BEGUN = {**FUNCTION, "arguments": ""}
ITEMS = typed(
    {"type": "response.created", "sequence_number": 0, "response": response(status="in_progress", usage=None)},
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": {**FUNCTION, "arguments": ""},
    },
    {
        "type": "response.function_call_arguments.delta",
        "sequence_number": 2,
        "output_index": 0,
        "item_id": "fc_1",
        "delta": '{"n": 1}',
    },
    {"type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": FUNCTION},
    {"type": "response.hologram.delta", "sequence_number": 4, "light": [1.5]},
    {"type": "response.completed", "sequence_number": 5, "response": response(FUNCTION)},
)


def claude(url: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0)


def gpt(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0)
