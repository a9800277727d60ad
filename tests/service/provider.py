"""A provider in small, behind all three wires: it calls the clock when it is offered, then says the time."""

from __future__ import annotations

from typing import Any

from tests.service.upstream import Received, Reply, chunk, completion, delta, events, streamed, whole, words
from tests.service.wires import ANSWER, CALL, DELTAS, FUNCTION, ITEMS, REASONING, TEXT, response, said, typed

SPOKEN = typed(
    {"type": "response.created", "sequence_number": 0, "response": response(status="in_progress", usage=None)},
    {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {**ANSWER, "content": []}},
    {
        "type": "response.content_part.added",
        "sequence_number": 2,
        "output_index": 0,
        "content_index": 0,
        "item_id": "msg_1",
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    *(
        {
            "type": "response.output_text.delta",
            "sequence_number": 3 + i,
            "output_index": 0,
            "content_index": 0,
            "item_id": "msg_1",
            "delta": piece,
            "logprobs": [],
        }
        for i, piece in enumerate(("Halb ", "drei. 🕝"))
    ),
    {"type": "response.output_item.done", "sequence_number": 5, "output_index": 0, "item": ANSWER},
    {"type": "response.completed", "sequence_number": 6, "response": response(ANSWER)},
)
COUNTED = {"object": "response.input_tokens", "input_tokens": 11, "id": "r", "output": [], "created_at": 1}


def provider(request: Received) -> Reply:
    """What it answers."""
    asked = request.json
    if request.path == "/v1/chat/completions":
        return _chat(asked)
    if request.path == "/v1/responses":
        return _responses(asked)
    return _messages(asked) if request.path.startswith("/v1/messages") else whole(COUNTED)


def _chat(asked: dict[str, Any]) -> Reply:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "Mainz"}'}}
    if asked.get("tools") and not any(message["role"] == "tool" for message in asked["messages"]):
        first = chunk(delta(role="assistant", content=None, tool_calls=[{"index": 0, **call}]))
        stream, answer = events(first, chunk(delta(finish="tool_calls")), "[DONE]"), completion(None, tool_calls=[call])
    else:
        text = '{"hour": 14, "minute": 30}' if asked.get("response_format") else "Halb drei. 🕝"
        stream, answer = words(text[:5], text[5:]), completion(text)
    return streamed(stream) if asked.get("stream") else whole(answer)


def _responses(asked: dict[str, Any]) -> Reply:
    items = asked["input"] if isinstance(asked["input"], list) else []
    stream, answer = SPOKEN, response(ANSWER)
    if asked.get("tools") and not any(item.get("type") == "function_call_output" for item in items):
        stream, answer = ITEMS, response(REASONING, FUNCTION)
    elif asked.get("text"):
        part = {"type": "output_text", "text": '{"hour": 14}', "annotations": []}
        answer = response({**ANSWER, "content": [part]})
    return streamed(stream) if asked.get("stream") else whole(answer)


def _messages(asked: dict[str, Any]) -> Reply:
    blocks = [b for m in asked["messages"] if isinstance(m["content"], list) for b in m["content"]]
    answer = said(TEXT)
    if asked.get("tools") and not any(block["type"] == "tool_result" for block in blocks):
        answer = said({**CALL, "input": {"zone": "Mainz"}}, stop="tool_use")
    elif asked.get("output_config") or asked.get("output_format"):
        answer = said({"type": "text", "text": '{"hour": 14}'})
    return streamed(DELTAS) if asked.get("stream") else whole(answer)
