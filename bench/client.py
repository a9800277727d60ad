"""A plain HTTP client for benches and fault tests: bytes in, bytes out, nothing retried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded.

        Raises:
            RuntimeError: the status is not 2xx.
        """
        if not 200 <= self.status < 300:
            raise RuntimeError(f"status {self.status}: {self.body[:500]!r}")
        return json.loads(self.body)


@dataclass(slots=True)
class Client:
    """Requests to one server, each over a connection of its own, so that a killed server breaks only what it served.

    Attributes:
        root: base URL without a path.
        headers: sent with every request.
        timeout_s: seconds to wait for the server.
    """

    root: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    def get(self, path: str) -> Answer:
        """GET.

        Raises:
            OSError: the server is not there or went away.
        """
        return self._ask("GET", path, None, {})

    def post(self, path: str, wire: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """POST JSON: an object, or bytes as they are.

        Raises:
            OSError: the server is not there or went away.
        """
        body = wire if isinstance(wire, bytes) else json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode()
        return self._ask("POST", path, body, headers or {})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = HTTPConnection(urlsplit(self.root).netloc, timeout=self.timeout_s)
        kind = {"content-type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, {**kind, **self.headers, **headers})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except HTTPException as error:
            raise ConnectionError(f"the server went away: {error}") from error
        finally:
            connection.close()


def spliced(wire: Mapping[str, Any], messages: list[bytes]) -> bytes:
    """A request body with the messages' own bytes in it."""
    rest = json.dumps(dict(wire), ensure_ascii=False, separators=(",", ":")).encode()
    return rest[:-1] + (b"," if len(rest) > 2 else b"") + b'"messages":[' + b",".join(messages) + b"]}"
