"""What sessions leave behind as compressed key/value memory, beside the log it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ctxmem.records import Event


@dataclass(frozen=True, slots=True)
class SlotName:
    """Names a session's memory: the state event at which its conversation was folded.

    Attributes:
        tenant: whose session.
        session_id: the session.
        event_id: the state event.
    """

    tenant: str
    session_id: str
    event_id: str

    @property
    def cache_key(self) -> str:
        """Where the shared cache has the session's newest memory."""
        return slots_key(self.session_id)


def slots_key(session_id: str) -> str:
    """Where the shared cache has the newest memory of a session."""
    return f"slots:{session_id}"


class SlotStore(Protocol):
    """Compressed memories. They can be made again from the log at any time.

    All methods raise `StoreError` when the database is out of reach.
    """

    def folded(self, name: SlotName) -> list[Event]:
        """The events for which the state stands, in the order of the conversation; an earlier state comes first."""
        ...

    def slots(self, name: SlotName, maker: str) -> bytes | None:
        """The memory that a model made for a state event."""
        ...

    def keep(self, name: SlotName, maker: str, blob: bytes, *, versions: int) -> bool:
        """Keep a memory durably; of its session only the newest `versions` stay. False when the event is gone."""
        ...
