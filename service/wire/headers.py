"""Headers: what the caller asks of us, what goes to the upstream, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from ctxmem.errors import InvalidInput
from ctxmem.types import Budget

Headers = Sequence[tuple[bytes, bytes]]
"""Raw headers, names in lower case."""

Mode = Literal["off", "observe", "on"]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_OURS = b"x-ctxmem-"
_NOT_UPSTREAM = _HOP_BY_HOP | frozenset(
    b"host content-length expect authorization api-key x-api-key cookie forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-proto x-real-ip".split()
)
_NOT_CLIENT = _HOP_BY_HOP | {b"set-cookie", b"date", b"server"}
_VISIBLE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~ "
_MODES: dict[str, Mode] = {"off": "off", "observe": "observe", "on": "on"}
_MAX_ID = 256


@dataclass(frozen=True, slots=True)
class Directives:
    """What the caller asks of us.

    Attributes:
        mode: pass through, watch, or edit.
        session_id: the session, when the caller names it.
        user_id: whose it is; empty when nobody says.
        budget: prompt tokens allowed; None for the model's window.
        policy: name of the policy; None for the default.
        retry: whether an SDK says it has sent this before.
    """

    mode: Mode = "on"
    session_id: str | None = None
    user_id: str = ""
    budget: Budget | None = None
    policy: str | None = None
    retry: bool = False


def directives(headers: Headers) -> Directives:
    """Read the `x-ctxmem-*` request headers.

    Raises:
        InvalidInput: one of them has no legal value.
    """
    asked = {name: _text(name, value) for name, value in headers if name.startswith(_OURS)}
    mode = asked.get(b"x-ctxmem-mode", "on").lower()
    if mode not in _MODES:
        raise InvalidInput(f"x-ctxmem-mode must be off, observe or on, got {mode!r}", param="x-ctxmem-mode")
    return Directives(
        mode=_MODES[mode],
        session_id=asked.get(b"x-ctxmem-session") or None,
        user_id=asked.get(b"x-ctxmem-user", ""),
        budget=_budget(asked.get(b"x-ctxmem-budget")),
        policy=asked.get(b"x-ctxmem-policy") or None,
        retry=first(headers, b"x-stainless-retry-count") not in (b"", b"0"),
    )


def first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first value of a header, empty when it is absent."""
    return next((value for key, value in headers if key == name), b"")


def to_upstream(headers: Headers, *, key: str | None, readable: bool, bearer: bool = True) -> list[tuple[str, str]]:
    """Request headers as the upstream gets them.

    Args:
        headers: as the client sent them; its credential and cookies stay here.
        key: the upstream's own key.
        readable: ask for an answer that is not packed, because we must read it.
        bearer: send the key as a bearer token; else as `x-api-key`.
    """
    dropped = _NOT_UPSTREAM | _connection_options(headers) | ({b"accept-encoding"} if readable else set())
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name not in dropped and not name.startswith(_OURS)
    ]
    if readable:
        kept.append(("accept-encoding", "identity"))
    if key:
        kept.append(("authorization", f"Bearer {key}") if bearer else ("x-api-key", key))
    return kept


def to_client(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An upstream's response headers as the client gets them."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_CLIENT | _connection_options(lowered)
    return [(name, value) for name, value in lowered if name not in dropped and not name.startswith(_OURS)]


def header_safe(text: str) -> bytes:
    """Text as a header value: what is not visible ASCII is percent-encoded."""
    return quote(text, safe=_VISIBLE).encode()


def _connection_options(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Headers that `connection` names as meant for this hop only."""
    return {option.strip().lower() for name, value in headers if name == b"connection" for option in value.split(b",")}


def _text(name: bytes, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name.decode()} is not UTF-8", param=name.decode()) from error
    if len(text) > _MAX_ID:
        raise InvalidInput(f"{name.decode()} is longer than {_MAX_ID} characters", param=name.decode())
    return text.strip()


def _budget(value: str | None) -> Budget | None:
    if not value:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise InvalidInput(f"x-ctxmem-budget must be a whole number of tokens, got {value!r}", param="x-ctxmem-budget")
    return Budget(int(value))
