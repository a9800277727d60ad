"""Errors as HTTP answers: one table from exception to status, and the OpenAI error object.

```
CtxmemError
└── ServiceError
    ├── Unauthorized        no such key
    ├── UnknownModel        no upstream serves the model
    ├── BodyTooLarge        the body is over the cap
    ├── BodyTimeout         the body did not come in time
    ├── Overloaded          too many requests in flight
    └── UpstreamError
        ├── UpstreamDown    no connection, or it broke before the answer's head
        ├── UpstreamSlow    no answer in time
        └── UpstreamPaused  failed too often just now; asked again soon
```
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ctxmem import errors
from ctxmem.errors import CtxmemError, InvalidInput


class ServiceError(CtxmemError):
    """Something the service, not the core, refuses."""


class Unauthorized(ServiceError):
    """The credential is missing or unknown."""

    code = "invalid_api_key"


class UnknownModel(ServiceError):
    """No upstream serves the model."""

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model[:200]}` does not exist or you do not have access to it.")


class BodyTooLarge(ServiceError):
    """The body is over the cap."""

    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes.")


class BodyTimeout(ServiceError):
    """The body did not arrive in time."""

    code = "request_timeout"


class Overloaded(ServiceError):
    """Too many requests are in flight."""

    code = "overloaded"


class UpstreamError(ServiceError):
    """The upstream gave no answer."""

    code = "upstream_error"


class UpstreamDown(UpstreamError):
    """The upstream cannot be reached, or broke the connection before it answered."""

    code = "upstream_unreachable"


class WorkerDown(UpstreamDown):
    """The local model's worker is not there now; it is being started again."""

    code = "unavailable"


class UpstreamSlow(UpstreamError):
    """The upstream did not answer in time."""

    code = "upstream_timeout"


class UpstreamPaused(UpstreamError):
    """The upstream failed too often just now; it is tried again soon.

    Attributes:
        retry_after: seconds until the next try.
    """

    code = "upstream_paused"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


_TABLE: tuple[tuple[type[CtxmemError], int, str], ...] = (
    (InvalidInput, 400, "invalid_request_error"),
    (errors.BudgetError, 400, "invalid_request_error"),
    (errors.NotFound, 404, "invalid_request_error"),
    (errors.Conflict, 409, "invalid_request_error"),
    (errors.StoreError, 503, "server_error"),
    (errors.ModelError, 503, "server_error"),
    (errors.Unavailable, 503, "server_error"),
    (Unauthorized, 401, "authentication_error"),
    (UnknownModel, 404, "invalid_request_error"),
    (BodyTooLarge, 413, "invalid_request_error"),
    (BodyTimeout, 408, "invalid_request_error"),
    (Overloaded, 503, "server_error"),
    (UpstreamPaused, 503, "upstream_error"),
    (WorkerDown, 503, "server_error"),
    (UpstreamSlow, 504, "upstream_error"),
    (UpstreamError, 502, "upstream_error"),
)

_CODES = {errors.BudgetError.code: "context_length_exceeded"}
"""Codes that OpenAI clients know under another name."""

CLIENT_ERRORS = (InvalidInput, errors.BudgetError, errors.NotFound, errors.Conflict)
"""What the caller must put right; everything else the manager raises is ours, and the request goes on without it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as it goes over the wire.

    Attributes:
        status: HTTP status.
        headers: extra headers.
        body: the OpenAI error object.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def answer(error: CtxmemError) -> Answer:
    """The HTTP answer for an error."""
    status, kind = next(
        ((status, kind) for cls, status, kind in _TABLE if isinstance(error, cls)), (500, "server_error")
    )
    extra: list[tuple[bytes, bytes]] = []
    if status == 503:
        extra.append((b"retry-after", b"%d" % max(1, round(getattr(error, "retry_after", 1.0)))))
    if isinstance(error, Overloaded | UpstreamPaused | WorkerDown):
        extra.append((b"x-should-retry", b"true"))
    if isinstance(error, BodyTooLarge | BodyTimeout):
        extra.append((b"connection", b"close"))
    body = error_object(
        str(error), kind=kind, code=_CODES.get(error.code, error.code), param=getattr(error, "param", None)
    )
    return Answer(status, tuple(extra), body)


_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's error types by status."""


def anthropic(error: CtxmemError) -> Answer:
    """The HTTP answer for an error, its body as Anthropic's clients read it."""
    told = answer(error)
    about = {"type": _ANTHROPIC.get(told.status, "api_error"), "message": str(error)}
    body = msgspec.json.encode({"type": "error", "error": about, "request_id": None})
    return Answer(told.status, told.headers, body)


def error_object(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """The JSON of an OpenAI error, all four keys present."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
