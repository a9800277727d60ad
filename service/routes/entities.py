"""People: erasing everything of a user."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.routes import shapes
from service.routes.access import Manager, Parts, as_json, threaded

router = APIRouter(prefix="/v1", tags=["entities"])


@router.delete("/entities/user/{user_id}")
async def erase_user(service: Parts, manager: Manager, user_id: str) -> Response:
    """Erase every row, original and cached state of a user; answers with the receipt of the deletion."""
    return as_json(shapes.erasure(await threaded(service, lambda: manager.erase_user(user_id))))
