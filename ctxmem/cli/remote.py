"""A running service, spoken to over HTTP with the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import quote, urlencode

from ctxmem.errors import BudgetError, ConfigError, Conflict, CtxmemError, InvalidInput, NotFound, Unavailable

Wire = dict[str, Any]
"""A JSON object as the REST interface gives and takes it."""

PATIENCE = 600.0
"""Seconds to wait for an answer; a local model may take its time."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a service on this machine needs no proxy

_TOO_SMALL = frozenset({BudgetError.code, "context_length_exceeded"})

_BY_STATUS: Mapping[int, type[CtxmemError]] = {
    400: InvalidInput,
    401: ConfigError,
    403: ConfigError,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


@dataclass(frozen=True, slots=True)
class RemoteService:
    """One service and the key to it.

    Attributes:
        base_url: address up to and with `/v1`.
        key: sent as a bearer token; None to send none.
    """

    base_url: str
    key: str | None

    def alive(self) -> bool:
        """Whether it answers at all."""
        try:
            with self.open("GET", "../livez", timeout=2):
                return True
        except CtxmemError:
            return False

    def call(self, method: str, path: str, body: Wire | None = None, **query: str | int | None) -> Any:
        """One exchange of JSON.

        Raises:
            CtxmemError: what the service answered, as the error it stands for.
        """
        asked = {name: value for name, value in query.items() if value is not None}
        with self.open(method, f"{path}?{urlencode(asked)}" if asked else path, body) as answer:
            return json.loads(answer.read() or b"null")

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: Wire | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Iterator[HTTPResponse]:
        """One exchange, the answer's body still to be read.

        Raises:
            CtxmemError: what the service answered, as the error it stands for.
            Unavailable: it cannot be reached, or broke off.
        """
        request = urllib.request.Request(self._url(path), method=method)
        for name, value in {**self._headers(), **(headers or {})}.items():
            request.add_header(name, value)
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            with _DIRECT.open(request, data, timeout) as answer:
                yield cast(HTTPResponse, answer)
        except urllib.error.HTTPError as error:
            raise _translated(error.code, error.read()) from error
        except (OSError, HTTPException) as error:
            raise Unavailable(f"the service at {self.base_url} cannot be reached: {_why(error)}") from error

    def _headers(self) -> dict[str, str]:
        authorization = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return {"content-type": "application/json", **authorization}

    def _url(self, path: str) -> str:
        root = self.base_url.rstrip("/")
        return f"{root.removesuffix('/v1')}/{path[3:]}" if path.startswith("../") else f"{root}/{path}"


def segment(text: str) -> str:
    """The text as one segment of a URL's path."""
    return quote(text, safe="")


def _translated(status: int, body: bytes) -> CtxmemError:
    """The error that the service's answer stands for."""
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code, error = f"the service answered {status}: {body[:200].decode(errors='replace')}", None, {}
    if code in _TOO_SMALL:
        return BudgetError(message, needed=int(error.get("needed") or 0), limit=int(error.get("limit") or 0))
    return _BY_STATUS.get(status, CtxmemError)(message)


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
