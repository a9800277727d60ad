"""Commands' needs met by a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ctxmem.cli.remote import RemoteService, Wire, segment
from ctxmem.errors import Unavailable


class ServiceBackend:
    """A running service as the commands' backend."""

    def __init__(self, service: RemoteService) -> None:
        self._service = service

    @property
    def where(self) -> str:
        return f"service at {self._service.base_url}"

    def compress(self, request: Wire) -> Wire:
        return self._object("POST", "compress", request)

    def context(self, request: Wire) -> Wire:
        return self._object("POST", "context", request)

    def ingest(self, request: Wire) -> Wire:
        return self._object("POST", "documents", request)

    def search(self, request: Wire) -> Wire:
        return self._object("POST", "documents/search", request)

    def receipt(self, request_id: str) -> Wire:
        return self._object("GET", f"requests/{segment(request_id)}")

    def restore(self, item_id: str) -> bytes:
        with self._service.open("GET", f"items/{segment(item_id)}/restore") as answer:
            return answer.read().removeprefix(b'{"message":').removesuffix(b"}")

    def sessions(self, *, limit: int) -> list[Wire]:
        found: list[Wire] = self._service.call("GET", "sessions", limit=limit)["sessions"]
        return found

    def events(self, session_id: str) -> Iterator[Wire]:
        with self._service.open("GET", f"sessions/{segment(session_id)}/export") as answer:
            for line in answer:
                yield json.loads(line)

    def erase_session(self, session_id: str) -> Wire:
        return self._object("DELETE", f"sessions/{segment(session_id)}")

    def erase_user(self, user_id: str) -> Wire:
        return self._object("DELETE", f"entities/user/{segment(user_id)}")

    def close(self) -> None:
        """Nothing to let go of: every exchange closes its own connection."""

    def _object(self, method: str, path: str, body: Wire | None = None) -> Wire:
        answer = self._service.call(method, path, body)
        if not isinstance(answer, dict):
            raise Unavailable(f"{self.where} answered something else than an object")
        return answer
