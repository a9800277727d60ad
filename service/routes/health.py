"""Liveness, readiness and metrics: open to anyone who can reach the port, and free of anybody's data."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ctxmem.errors import StoreError
from service.routes.access import Parts, threaded
from service.wiring import Service

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: Parts, response: Response) -> dict[str, Any]:
    """Whether requests are served in full. Without Redis or the model worker they are, only slower or less exact."""
    state = await threaded(service, lambda: _state(service))
    ready = state["sql"] == "ok" and not service.draining
    response.status_code = 200 if ready else 503
    whole = ready and "down" not in state.values()
    status = "ok" if whole else "degraded" if ready else "draining" if service.draining else "unavailable"
    return {"status": status, **state}


@router.get("/metrics")
async def metrics(service: Parts) -> Response:
    """Everything counted, in the Prometheus text format."""
    return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _state(service: Service) -> dict[str, str]:
    return {"sql": _sql(service), "worker": service.worker_state(), "redis": service.cache_state()}


def _sql(service: Service) -> str:
    try:
        health = service.manager.engine.store.health()
    except StoreError as error:
        return error.code
    return next((value for value in health.values() if value not in ("ok", "head", "sqlite", "postgresql")), "ok")
