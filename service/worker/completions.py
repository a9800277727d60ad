"""`POST /v1/chat/completions`: replies of the local model, streamed or whole, ended when the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from ctxmem.errors import CtxmemError
from service import errors
from service.worker import chat
from service.worker.behind import HEADER, Behind
from service.worker.engine import Engine, Prompt
from service.worker.wire import ChatRequest

if TYPE_CHECKING:
    from ctxmem.lm.reply import Completion, Sampling, Token

SESSION = "x-ctxmem-session"
"""Header with the session whose cached prefix may be used; the sender keeps tenants apart in it."""

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Completions:
    """ASGI endpoint: chat with the worker's model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = chat.read(await request.body())
        self._engine.check(asked.model)
        named = Behind.read(request.headers.get(HEADER))
        prompt = await self._prompt(asked, request.headers.get(SESSION), named)
        reply = Reply(self._engine, asked, prompt)
        answer = reply.stream(send) if asked.stream else reply.whole(scope, receive, send)
        await _unless_gone(answer, receive)

    async def _prompt(self, asked: ChatRequest, session: str | None, named: Behind | None) -> Prompt:
        """The request as token ids; without the message for which a memory stands, where that is made."""
        read, memory = chat.messages(asked), None
        if named is not None and named.at < len(read) > 1:
            memory = await self._engine.memory(named.name)
        if named is not None and memory is not None:
            read = [*read[: named.at], *read[named.at + 1 :]]
        return Prompt(await asyncio.to_thread(self._engine.encode, read, chat.tools(asked)), session, memory)


class Reply:
    """The answer to one request: `n` choices, one after the other, which share the prompt's cached prefix."""

    def __init__(self, engine: Engine, asked: ChatRequest, prompt: Prompt) -> None:
        self._engine = engine
        self._prompt = prompt
        self._asked = asked
        self._sampling = chat.sampling(asked)
        self._envelope = chat.Envelope(engine.model_id, engine.token)
        self._completions: list[Completion] = []

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer at once."""
        choices = [await self._choice(index) for index in range(self._asked.n or 1)]
        body = self._envelope.completion(choices, chat.usage(self._completions))
        await Response(body, media_type="application/json")(scope, receive, send)

    async def stream(self, send: Send) -> None:
        """Send the answer piece by piece. What goes wrong before the first piece is an error response."""
        async with aclosing(self._chunks()) as chunks:
            first = await anext(chunks)
            await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
            await send(_body(first))
            try:
                async for chunk in chunks:
                    await send(_body(chunk))
            except CtxmemError as error:
                await send(_body(b"data: " + errors.answer(error).body + b"\n\n"))
            await send(_body(b"", more=False))

    async def _choice(self, index: int) -> dict[str, Any]:
        text: list[str] = []
        tokens: list[Token] = []
        async with self._engine.chat(self._prompt, self._drawn(index)) as work:
            async for piece in work:
                text.append(piece.text)
                tokens.extend([piece.token] if piece.token else [])
        self._completions.append(work.result)
        message = {"role": "assistant", "content": "".join(text), "refusal": None}
        logprobs = self._envelope.logprobs(tokens)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": work.result.finish_reason}

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        wanted = self._asked.stream_options is not None and self._asked.stream_options.include_usage
        for index in range(self._asked.n or 1):
            async with aclosing(self._deltas(index)) as deltas:
                async for delta in deltas:
                    yield self._envelope.chunk([delta], usage=wanted)
        if wanted:
            yield self._envelope.chunk([], usage=chat.usage(self._completions))
        yield chat.DONE

    async def _deltas(self, index: int) -> AsyncGenerator[dict[str, Any], None]:
        """A choice's changes: its role once the prompt is being read, its text, its end."""
        opened = False
        async with self._engine.chat(self._prompt, self._drawn(index)) as work:
            async for piece in work:
                if not opened:
                    yield self._envelope.delta(index, {"role": "assistant", "content": "", "refusal": None})
                    opened = True
                if piece.text or (piece.token and piece.token.logprob is not None):
                    yield self._envelope.delta(index, {"content": piece.text}, token=piece.token)
        self._completions.append(work.result)
        yield {**self._envelope.delta(index, {}), "finish_reason": work.result.finish_reason}

    def _drawn(self, index: int) -> Sampling:
        """How the choice is drawn: a seed gives each choice another one, the first the seed itself."""
        seed = self._sampling.seed
        return self._sampling if seed is None else replace(self._sampling, seed=(seed + index) % 2**63)


async def _unless_gone(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run to the end, or until the client closes the connection."""
    work, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait({work})
    if not work.cancelled():
        work.result()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _body(content: bytes, *, more: bool = True) -> Event:
    return {"type": "http.response.body", "body": content, "more_body": more}
