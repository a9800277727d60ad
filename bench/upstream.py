"""A scripted OpenAI-compatible server for benches: `python -m bench.upstream PORT`.

It answers every chat request at once, with the start of the newest message. A streamed answer has as many content
events as the request's `max_tokens` or `max_completion_tokens` says. It is a raw ASGI app, so that it costs little
beside what is measured. `GET /v1/seen` gives the bodies of the newest chat requests.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

MODEL = "scripted"
EVENT_PAUSE_S = 0.002
"""Seconds between streamed events: short, yet long enough that each is its own packet, as a model's tokens are."""

_STAMP = {"id": "chatcmpl-scripted", "created": 1_700_000_000, "model": MODEL}
_LISTED = {"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}

_seen: deque[str] = deque(maxlen=100)


async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    body = await _body(receive)
    if scope["method"] == "GET":
        listed = list(_seen) if scope["path"].endswith("/seen") else [_LISTED]
        await _whole(send, {"object": "list", "data": listed})
        return
    _seen.append(body.decode())
    request = json.loads(body)
    if request.get("stream"):
        await _streamed(send, _events(request))
    else:
        message = {"role": "assistant", "content": answer_to(request["messages"][-1])}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        await _whole(send, {**_STAMP, "object": "chat.completion", "choices": [choice], "usage": _USAGE})


def answer_to(message: Mapping[str, Any]) -> str:
    """What the server says to a message."""
    return f"You said: {str(message.get('content'))[:80]}"


def _events(request: Mapping[str, Any]) -> int:
    """How many content events are asked for, under the field's old or new name."""
    return int(request.get("max_completion_tokens") or request.get("max_tokens") or 4)


async def _streamed(send: Send, events: int) -> None:
    await send(_head("text/event-stream"))
    await send(_piece(_chunk({"role": "assistant", "content": ""})))
    for number in range(events):
        await send(_piece(_chunk({"content": f" word{number}"})))
        await asyncio.sleep(EVENT_PAUSE_S)
    await send(_piece(_chunk({}, finish="stop")))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _chunk(delta: Mapping[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return f"data: {json.dumps({**_STAMP, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


def _piece(data: bytes) -> Mapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


def _head(kind: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> Mapping[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode()), *extra]}


async def _whole(send: Send, answer: Mapping[str, Any]) -> None:
    body = json.dumps(answer).encode()
    await send(_head("application/json", [(b"content-length", str(len(body)).encode())]))
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
