"""Liveness, readiness and metrics: open to anyone who can reach the port, and free of anybody's data."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from service.routes.access import Parts, threaded

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: Parts, response: Response) -> dict[str, Any]:
    """Whether requests are served in full. Without Redis or the model worker they are, only slower or less exact."""
    state = await threaded(service, service.state)
    ready = state["sql"] == "ok" and not service.draining
    response.status_code = 200 if ready else 503
    whole = all(part in ("ok", "none") for part in state.values())
    status = "draining" if service.draining else "unavailable" if not ready else "ok" if whole else "degraded"
    return {"status": status, **state}


@router.get("/metrics")
async def metrics(service: Parts) -> Response:
    """Everything counted, in the Prometheus text format."""
    return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
