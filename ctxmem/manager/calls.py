"""What goes into the manager and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ctxmem.ledger import CacheTerms
from ctxmem.plan import ContextPlan
from ctxmem.types import Budget, Message, Receipt


@dataclass(frozen=True, slots=True)
class Call:
    """One request for a context.

    Attributes:
        messages: what the caller sent, each with its JSON in `raw`.
        model: target model, as the caller names it; decides how tokens are counted.
        session_id: the caller's session; None lets the chain of messages find it.
        user_id: whose session it is.
        budget: prompt tokens allowed; None means the model's window less `reserve`.
        reserve: tokens kept for the answer when `budget` is None.
        tools: the request's tools as a JSON array.
        policy: name of the policy; None means the manager's default.
        mode: `observe` computes everything and changes nothing that is sent.
        history: `full` when the messages are all history, `delta` when they are only what is new.
        retry: the caller says it has sent this before.
        cache: how the upstream prices its prompt cache.
        tenant: whose call it is; the manager says.
    """

    messages: tuple[Message, ...]
    model: str = ""
    session_id: str | None = None
    user_id: str = ""
    budget: Budget | None = None
    reserve: int = 0
    tools: bytes | None = None
    policy: str | None = None
    mode: Literal["on", "observe"] = "on"
    history: Literal["auto", "full", "delta"] = "auto"
    retry: bool = False
    cache: CacheTerms = field(default_factory=CacheTerms)
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A context ready to send. Everything in it is durable.

    Attributes:
        request_id: name of the receipt.
        session_id: session the request belongs to.
        plan: the plan; its receipt has no items (ask the manager for them).
        messages: what to send.
        changed: whether `messages` differ from what the caller sent.
        receipt: the account of the request, without items.
        tokens_before: tokens of the whole history unedited.
        tokens_after: tokens of what is sent.
    """

    request_id: str
    session_id: str
    plan: ContextPlan
    messages: tuple[Message, ...]
    changed: bool
    receipt: Receipt
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did.

    Attributes:
        revision: the session's revision after it.
        event_ids: the events, one per message, in order.
    """

    revision: int
    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """A request built again from the log.

    Attributes:
        messages: the messages.
        identical: whether their bytes are those that were sent.
        receipt: the account, with items.
    """

    messages: tuple[Message, ...]
    identical: bool
    receipt: Receipt
