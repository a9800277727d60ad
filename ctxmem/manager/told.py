"""Where what memories are made of is logged: in its session, once."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from ctxmem import chat
from ctxmem.memories import Memories
from ctxmem.memory import Scope
from ctxmem.records import Event
from ctxmem.types import Message

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager

APART = "memories/"
"""What the session begins with that keeps what was told outside of any session; its user's id follows."""

AGENTS = "memories of agents/"
"""The same of what was told by nobody; the agent's id follows."""

_LONGEST_NAME = 256  # characters of a session's id

_LOOKED_AT = 1_000
"""Newest events of the session among which a message is looked for."""


def told_to(manager: ContextManager) -> Memories:
    """The long-term memories of a manager's tenant, each standing on the log."""
    engine = manager.engine
    return Memories(engine.store.memories, manager.tenant, log=SessionLog(manager), models=engine.memory_models)


class SessionLog:
    """Finds messages in the session they are from, and logs there what is not in it yet."""

    def __init__(self, manager: ContextManager) -> None:
        """Bind to the manager whose tenant owns the sessions."""
        self._manager = manager

    def __call__(self, messages: Sequence[Message], who: Scope) -> list[tuple[str, str] | None]:
        """Event and session of each message; None for one that ctxmem itself put into the session."""
        name = self._name(who)
        view = self._manager.session(name, user_id=who.user_id)
        known = {_said(chat.parse(event.raw)): event for event in self._newest(name)}
        new = [message for message in dict.fromkeys(messages) if _said(message) not in known]
        seats: dict[tuple[str, str], str | None] = {said: _seat(event) for said, event in known.items()}
        if new:
            seats.update(zip(map(_said, new), view.append(new).event_ids, strict=True))
        found = [seats[_said(message)] for message in messages]
        return [(event_id, name) if event_id is not None else None for event_id in found]

    def _name(self, who: Scope) -> str:
        """The session to log in: never another user's, with whom it would be erased, and stay when its own user is."""
        store, tenant = self._manager.engine.store, self._manager.tenant
        head = store.session(tenant, who.session_id) if who.session_id else None
        if who.session_id and (head is None or not who.user_id or head.user_id in ("", who.user_id)):
            return who.session_id
        name = f"{APART}{who.user_id}" if who.user_id else f"{AGENTS}{who.agent_id}"
        return name if len(name) <= _LONGEST_NAME else f"{APART}{sha256(name.encode()).hexdigest()}"

    def _newest(self, name: str) -> list[Event]:
        store, tenant = self._manager.engine.store, self._manager.tenant
        head = store.session(tenant, name)
        if head is None:
            return []
        return store.events(tenant, name, after_seq=max(-1, head.events - 1 - _LOOKED_AT), limit=_LOOKED_AT)


def _said(message: Message) -> tuple[str, str]:
    return message.role, message.text


def _seat(event: Event) -> str | None:
    return None if event.origin.startswith("ctxmem") else event.id
