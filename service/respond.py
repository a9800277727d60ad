"""Answers of the raw ASGI apps."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Send

from ctxmem.errors import CtxmemError
from service import errors

JSON = b"application/json"


async def respond(
    send: Send, status: int, body: bytes, *, kind: bytes = JSON, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole answer."""
    named = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(
    send: Send, error: CtxmemError, *, headers: Sequence[tuple[bytes, bytes]] = (), anthropic: bool = False
) -> None:
    """Answer with an error object: OpenAI's, or Anthropic's."""
    answer = errors.anthropic(error) if anthropic else errors.answer(error)
    await respond(send, answer.status, answer.body, headers=[*answer.headers, *headers])
