"""Liveness, readiness and metrics: open to anyone who can reach the port, and free of anybody's data."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.types import Send

from service.respond import respond
from service.wiring import Service

_EXPOSITION = b"text/plain; version=0.0.4; charset=utf-8"


async def livez(service: Service, send: Send) -> None:
    """The process answers."""
    await respond(send, 200, b'{"status":"ok"}')


async def readyz(service: Service, send: Send) -> None:
    """Whether requests are served in full. Without Redis or the model worker they are, only slower or less exact."""
    state = await asyncio.get_running_loop().run_in_executor(service.threads, service.state)
    ready = state["sql"] == "ok" and not service.draining
    whole = all(part in ("ok", "none") for part in state.values())
    status = "draining" if service.draining else "unavailable" if not ready else "ok" if whole else "degraded"
    await respond(send, 200 if ready else 503, msgspec.json.encode({"status": status, **state}))


async def metrics(service: Service, send: Send) -> None:
    """Everything counted, in the Prometheus text format."""
    await respond(send, 200, service.metrics.exposition(), kind=_EXPOSITION)
