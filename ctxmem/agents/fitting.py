"""How a plugin makes the model calls of an agent fit: settings that all of them take, and the one call they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctxmem import chat
from ctxmem.manager import Call, ContextManager, Prepared
from ctxmem.types import Budget, Message


@dataclass(frozen=True, slots=True)
class Fitting:
    """The settings.

    Attributes:
        manager: builds the contexts and keeps the log.
        budget: prompt tokens allowed; None for the model's window.
        policy: name of the policy.
        session: the session; None lets the history find it.
        user: whose session it is.
    """

    manager: ContextManager
    budget: int | Budget | None = None
    policy: str | None = None
    session: str | None = None
    user: str = ""

    def build(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        tools: Sequence[Mapping[str, Any]] = (),
        session: str | None = None,
        window: Budget | None = None,
    ) -> Prepared:
        """The context of one model call.

        Args:
            messages: all that the framework would send.
            model: target model.
            tools: of the call, in OpenAI's shape; they count.
            session: the framework's own name of the session, where the settings give none.
            window: the budget where the settings give none.

        Raises:
            BudgetError: what must stay does not fit.
        """
        return self.manager.build(
            Call(
                messages=tuple(messages),
                model=model,
                session_id=self.session or session,
                user_id=self.user,
                budget=Budget.of(self.budget) or window,
                tools=chat.dump_all(tools) if tools else None,
                policy=self.policy,
                history="full",
            )
        )
