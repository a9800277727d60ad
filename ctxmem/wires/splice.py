"""A JSON request body as slices of the bytes that came: what is not edited is forwarded as it was.

Only the top level is split (`msgspec.Raw`), so number formats, escapes, key order and unknown fields survive. A body
with a key twice is collapsed to its last values: what we read is then what the upstream reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ctxmem.errors import InvalidInput

MAX_DEPTH = 128
MAX_MESSAGES = 10_000

_KEY = re.compile(rb'[ \t\n\r]*"(?:[^"\\]|\\.)*"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_OPEN = re.compile(rb"[ \t\n\r]*\{")
_COMMA = re.compile(rb"[ \t\n\r]*,")
_CLOSE = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*\Z")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Body:
    """A request body, split at its top level.

    Attributes:
        original: the bytes that were split.
        content: what to forward when nothing is edited: the same object, or its collapsed form.
        fields: raw JSON by key.
        spans: where each value stands in `content`.
    """

    original: bytes
    content: bytes
    fields: Mapping[str, bytes]
    spans: Mapping[str, tuple[int, int]]

    def text(self, name: str) -> str | None:
        """A string field, or None when it is absent or null.

        Raises:
            InvalidInput: it is something else.
        """
        return _typed(self.fields.get(name, b"null"), str, name, "a string")

    def number(self, name: str) -> int | None:
        """A whole-number field, or None when it is absent, null or something else."""
        try:
            return msgspec.json.decode(self.fields.get(name, b"null"), type=int | None)
        except msgspec.MsgspecError:
            return None

    def messages(self, field: str = "messages") -> list[bytes]:
        """The raw messages.

        Raises:
            InvalidInput: they are missing, no list, empty, too many, or nested too deep.
        """
        if field not in self.fields:
            raise InvalidInput(f"Missing required parameter: '{field}'.", param=field)
        try:
            slices = [bytes(raw) for raw in _array.decode(self.fields[field])]
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{field} must be a list: {error}", param=field) from error
        if not 0 < len(slices) <= MAX_MESSAGES:
            raise InvalidInput(f"{field} must hold 1 to {MAX_MESSAGES}, got {len(slices)}", param=field)
        return slices

    def session(self) -> str | None:
        """The session named in `metadata.session_id`, or None."""
        try:
            metadata = msgspec.json.decode(self.fields.get("metadata", b"null"), type=_Metadata | None)
        except msgspec.MsgspecError:
            return None
        return metadata.session_id if metadata else None

    def edited(self, values: Mapping[str, bytes]) -> bytes:
        """The body with other raw values for some of its fields, every other byte as it was; new fields come last."""
        pieces, at = [], 0
        for name, (start, end) in sorted(self.spans.items(), key=lambda item: item[1]):
            if name in values:
                pieces += [self.content[at:start], values[name]]
                at = end
        new = [quoted(name) + b":" + value for name, value in values.items() if name not in self.spans]
        if not new:
            return b"".join([*pieces, self.content[at:]])
        rest, brace, after = self.content[at:].rpartition(b"}")
        return b"".join([*pieces, rest, b"," if self.spans else b"", b",".join(new), brace, after])


class _Metadata(msgspec.Struct):
    session_id: str | None = None


def split(received: bytes) -> Body:
    """Split a body and check its form.

    Raises:
        InvalidInput: not UTF-8, not JSON, not an object, or nested deeper than 128.
    """
    try:
        if not received.isascii():
            received.decode()
        fields = {name: bytes(raw) for name, raw in _object.decode(received).items()}
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not valid UTF-8 (byte {error.start}).") from error
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"We could not parse the JSON body of your request: {error}") from error
    except RecursionError as error:
        raise InvalidInput(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    for name, raw in fields.items():
        check_depth(raw, param=name)
    content, spans = received, _spans(received, fields)
    if spans is None:
        content = b"{" + b",".join(quoted(name) + b":" + raw for name, raw in fields.items()) + b"}"
        spans = _spans(content, fields)
    return Body(received, content, fields, spans or {})


def quoted(text: str) -> bytes:
    """Text as a JSON string."""
    return msgspec.json.encode(text)


def joined(messages: Sequence[bytes]) -> bytes:
    """Raw messages as a JSON array."""
    return b"[" + b",".join(messages) + b"]"


def check_depth(raw: bytes, *, param: str | None = None) -> None:
    """Refuse valid JSON that is nested deeper than 128 levels.

    Raises:
        InvalidInput: it is.
    """
    if raw.count(b"{") + raw.count(b"[") < MAX_DEPTH:
        return
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth >= MAX_DEPTH:
            raise InvalidInput(f"{param or 'The body'} is nested deeper than {MAX_DEPTH} levels.", param=param)


def _spans(body: bytes, fields: Mapping[str, bytes]) -> dict[str, tuple[int, int]] | None:
    """Where each value stands, or None when a key stands there twice."""
    spans: dict[str, tuple[int, int]] = {}
    separator = _OPEN
    at = 0
    for name, raw in fields.items():
        before = separator.match(body, at)
        key = _KEY.match(body, before.end()) if before else None
        if key is None or not body.startswith(raw, key.end()):
            return None
        at = key.end() + len(raw)
        spans[name] = key.end(), at
        separator = _COMMA
    return spans if not fields or _CLOSE.match(body, at) else None


def _typed(raw: bytes, kind: type[str], param: str, wanted: str) -> str | None:
    try:
        return msgspec.json.decode(raw, type=kind | None)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{param} must be {wanted}.", param=param) from error
