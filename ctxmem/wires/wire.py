"""The wires: how each provider's API writes a conversation, an answer and the end of a stream.

A wire turns a request body into messages and puts other messages back; it knows nothing of sessions, budgets or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctxmem.types import Message
from ctxmem.wires.completion import Answer
from ctxmem.wires.splice import Body, joined


def _never(body: Body) -> str:
    """The provider holds none of the history."""
    return ""


def _as_it_is(raw: bytes) -> bytes:
    return raw


@dataclass(frozen=True, slots=True)
class Wire:
    """One API.

    Attributes:
        path: its path below the base URL.
        field: the field that holds the conversation.
        header: the field that holds the system text; empty when that is a message.
        limits: fields that cap the answer's tokens, the first one that is set counts.
        endings: how the first line of a stream's terminating event may open.
        read: the answer in a body that was not streamed.
        assemble: the answer in a whole stream.
        tools: the request's tools as chat writes them.
        aside: why the request must go as it came, such as `provider_history`; empty when it need not.
        textual: whether the conversation may be a bare text, which the user says.
        bearer: whether the upstream's key goes as a bearer token; else as `x-api-key`.
        plain: a message that ctxmem made, as this wire takes it.
    """

    path: str
    field: str
    limits: tuple[str, ...]
    endings: tuple[bytes, ...]
    read: Callable[[bytes], Answer]
    assemble: Callable[[bytes], Answer]
    header: str = ""
    tools: Callable[[bytes], bytes] = _as_it_is
    aside: Callable[[Body], str] = _never
    textual: bool = False
    bearer: bool = True
    plain: Callable[[bytes], bytes] = _as_it_is

    def messages(self, body: Body) -> list[bytes]:
        """The conversation's raw messages, the system text first as one of its own.

        Raises:
            InvalidInput: they are missing, no list, empty or too many.
        """
        said = self._field(body)
        system = body.fields.get(self.header, b"null") if self.header else b"null"
        return said if system in (b"null", b'""', b"[]") else [self._opening + system + b"}", *said]

    def edited(self, body: Body, messages: Sequence[Message]) -> bytes:
        """The body with other messages, every other byte as it was."""
        raws = [message.raw or b"{}" for message in messages]
        said = [self.plain(raw) for raw in raws if not self._heads(raw)]
        values = {self.field: joined(said)}
        heads = [raw.removeprefix(self._opening)[:-1] for raw in raws if self._heads(raw)]
        if heads and body.fields.get(self.header) != heads[0]:
            values[self.header] = heads[0]
        return body.edited(values)

    def reserve(self, body: Body) -> int:
        """Tokens that the answer may take; 0 when the request does not say."""
        told = (body.number(name) for name in self.limits)
        return max(0, next((number for number in told if number), 0))

    def chat_tools(self, body: Body) -> bytes | None:
        """The request's tools as a JSON array in chat's shape; None without tools."""
        tools = body.fields.get("tools", b"null")
        return None if tools in (b"null", b"[]") else self.tools(tools)

    @property
    def _opening(self) -> bytes:
        """How the log writes the system text: as an item of its own type."""
        return b'{"type":"%s","role":"system","content":' % self.header.encode()

    def _heads(self, raw: bytes) -> bool:
        return bool(self.header) and raw.startswith(self._opening)

    def _field(self, body: Body) -> list[bytes]:
        raw = body.fields.get(self.field, b"")
        if self.textual and raw.startswith(b'"'):
            return [b'{"role":"user","content":' + raw + b"}"]
        return body.messages(self.field)
