"""What the gateway tells the model worker of a request's compressed memory: one header."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from ctxmem.ports import SlotName

HEADER = "x-ctxmem-memory"
"""Names the memory that a chat may be answered behind, and the message whose text it stands for."""


@dataclass(frozen=True, slots=True)
class Behind:
    """A memory in place of a message.

    Attributes:
        name: the memory.
        at: index of the message that tells the same as text.
    """

    name: SlotName
    at: int

    @property
    def header(self) -> str:
        """As the header's value."""
        named = (self.name.tenant, self.name.session_id, self.name.event_id, str(self.at))
        return ";".join(quote(part, safe="") for part in named)

    @classmethod
    def read(cls, header: str | None) -> Behind | None:
        r"""What a header's value says; None without one, or with one of another form.

        >>> Behind.read(Behind(SlotName("a;b", "s", "ev_1"), 2).header).name.tenant
        'a;b'
        """
        parts = [unquote(part) for part in (header or "").split(";")]
        if len(parts) != 4 or not parts[3].isdecimal():
            return None
        return cls(SlotName(*parts[:3]), int(parts[3]))
