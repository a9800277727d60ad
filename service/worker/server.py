"""The model worker's ASGI app: counts and scores for the gateway, and an OpenAI-compatible chat.

It answers as soon as it listens: counting needs no torch, and the language model is loaded behind it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ctxmem import chat
from ctxmem.errors import CtxmemError, InvalidInput
from ctxmem.manager.engine import cache_at
from service import errors, settings
from service.worker.completions import Completions
from service.worker.document_wire import Asked as Asking
from service.worker.documents import PATHS, Documents
from service.worker.engine import Engine
from service.worker.memories import Memories
from service.worker.wire import MSGPACK, CountReply, CountRequest, Health, ScoreReply, ScoreRequest

Asked = TypeVar("Asked", CountRequest, ScoreRequest)

_PAGE = os.sysconf("SC_PAGE_SIZE")


def create_app(
    model: str, *, adapter: str = "", cache_dir: Path | None = None, documents: Documents | None = None
) -> Starlette:
    """The worker's app, which loads the language model (packaged name, folder or hub id) once it starts.

    Args:
        model: the language model.
        adapter: of its compressed memories, by folder or hub id; empty for the one that ships.
        cache_dir: where converted models are kept.
        documents: the library; one without a database by default, which embeds and no more.
    """
    library = documents or Documents(None, cache_dir=cache_dir)
    engine = Engine(model, cache_dir=cache_dir, memories=_memories(library, adapter))

    async def count(request: Request) -> Response:
        return _packed(await asyncio.to_thread(_count, engine, _decoded(await request.body(), CountRequest)))

    async def score(request: Request) -> Response:
        return await _score(engine, _decoded(await request.body(), ScoreRequest))

    async def health(request: Request) -> Response:
        return JSONResponse(msgspec.to_builtins(_health(engine)))

    async def models(request: Request) -> Response:
        listed = {"id": engine.model_id, "object": "model", "created": 0, "owned_by": "ctxmem"}
        return JSONResponse({"object": "list", "data": [listed]})

    routes = [
        Route("/count", count, methods=["POST"]),
        Route("/score", score, methods=["POST"]),
        Route("/healthz", health),
        Route("/v1/models", models),
        Route("/v1/chat/completions", Completions(engine), methods=["POST"]),
    ]
    return Starlette(
        routes=[*routes, *_asking(library)],
        lifespan=lambda app: _open(engine, library),
        exception_handlers={CtxmemError: _refused},
    )


@asynccontextmanager
async def _open(engine: Engine, library: Documents) -> AsyncIterator[None]:
    """Both at work from the app's start to its end."""
    engine.start()
    library.start()
    yield
    library.close()
    engine.close()


def _memories(library: Documents, adapter: str) -> Memories:
    """Compressed memories in the library's database, with a copy in the cache that the environment names."""
    return Memories(lambda: library.store.slots, lambda: cache_at(settings.told("redis_url")), adapter=adapter)


def _asking(library: Documents) -> list[Route]:
    return [Route(path, _asks(library, kind), methods=["POST"]) for path, kind in PATHS.items()]


def _asks(library: Documents, kind: type[Asking]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint for what is asked of the library; it runs beside the language model, not in its turns."""

    async def ask(request: Request) -> Response:
        return Response(await asyncio.to_thread(library.answer, kind, await request.body()), media_type=MSGPACK)

    return ask


async def _score(engine: Engine, asked: ScoreRequest) -> Response:
    return _packed(await engine.score(asked.texts, asked.deadline))


def _count(engine: Engine, asked: CountRequest) -> CountReply:
    messages = [chat.parse(raw, param=f"messages[{at}]") for at, raw in enumerate(asked.messages)]
    return engine.count(asked, messages)


def _decoded(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not what this endpoint reads: {error}") from error


def _packed(reply: CountReply | ScoreReply) -> Response:
    return Response(msgspec.msgpack.encode(reply), media_type=MSGPACK)


def _health(engine: Engine) -> Health:
    loaded, failure = engine.loaded, engine.failure
    return Health(
        state="ready" if loaded else "failed" if failure else "loading",
        model=engine.model_id,
        error=str(failure or ""),
        scorer=loaded.lm.name if loaded else "",
        rate=loaded.lm.rate if loaded else 0.0,
        rss=_resident(),
        queue=engine.turns.admitted,
    )


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


async def _refused(request: Request, error: Exception) -> Response:
    """An error of ours as an OpenAI error object."""
    if not isinstance(error, CtxmemError):
        raise error
    answer = errors.answer(error)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers, media_type="application/json")
