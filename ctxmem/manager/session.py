"""One session, by name: what a caller can do with it without saying its id again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.errors import NotFound
from ctxmem.manager.calls import Appended
from ctxmem.plan import ContextPlan
from ctxmem.records import Erasure, Event, Session
from ctxmem.types import Budget, Message

if TYPE_CHECKING:
    from ctxmem.manager import ContextManager
    from ctxmem.manager.scopes import Scopes

_PAGE = 500


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as its owner sees it.

    Attributes:
        manager: the manager whose tenant owns it.
        id: the session's id.
        user_id: whose it becomes when it is made.
    """

    manager: ContextManager
    id: str
    user_id: str = ""

    @property
    def head(self) -> Session:
        """The session's head.

        Raises:
            NotFound: nothing was logged yet.
        """
        found = self.manager.engine.store.session(self.manager.tenant, self.id)
        if found is None:
            raise NotFound(f"no session {self.id!r}")
        return found

    def append(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        *,
        expected_revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> Appended:
        """Log messages without building a context.

        Args:
            messages: what to log, in order.
            expected_revision: refuse when the session is at another one.
            idempotency_key: a second append with the same key and messages gives the first one's result.

        Raises:
            InvalidInput: a message is wrong; nothing was logged.
            Conflict: the session's revision is not the expected one, or the key was used for something else.
        """
        return self.manager.writes.append(
            self.id,
            chat.parse_all(messages),
            expected=expected_revision,
            key=idempotency_key,
            user_id=self.user_id,
        )

    def build(self, messages: Sequence[Mapping[str, Any] | Message], budget: int | Budget | None = None) -> ContextPlan:
        """Log what is new and build the context; see `ContextManager.prepare`."""
        return self.manager.prepare(self.id, messages, budget)

    def events(self, *, after_seq: int = -1, limit: int = 1000) -> list[Event]:
        """Events of all branches in the order they were logged.

        Raises:
            NotFound: there is no such session.
        """
        head = self.head
        return self.manager.engine.store.events(self.manager.tenant, head.id, after_seq=after_seq, limit=limit)

    def export(self) -> Iterator[str]:
        """The whole log as JSON Lines, one event a line; see `exported` for its fields."""
        after = -1
        while page := self.events(after_seq=after, limit=_PAGE):
            for event in page:
                yield json.dumps(exported(event), ensure_ascii=False)
            after = page[-1].seq

    @property
    def scopes(self) -> Scopes:
        """Its subtasks."""
        from ctxmem.manager.scopes import Scopes

        return Scopes(self.manager, self.id)

    def erase(self) -> Erasure:
        """Erase the session: rows, originals, cached state; and those of its isolated scopes first.

        Raises:
            NotFound: there is no such session.
        """
        head = self.head
        for own in self.scopes.sessions():
            self.manager.session(own).erase()
        done = self.manager.engine.store.erase_session(self.manager.tenant, head.id)
        self.manager.engine.forget(self.manager.tenant, head)  # now that nothing can be loaded and kept again
        return done


def exported(event: Event) -> dict[str, Any]:
    """An event as it is exported."""
    return {**described(event), "message": chat.decode(event.raw)}


def described(event: Event) -> dict[str, Any]:
    """An event without its message."""
    return {
        "event_id": event.id,
        "seq": event.seq,
        "branch": event.branch,
        "depth": event.depth,
        "parent_id": event.parent_id,
        "role": event.role,
        "origin": event.origin,
        "request_id": event.request_id,
        "at": event.at,
        "complete": event.complete,
    }
