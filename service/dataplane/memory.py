"""The data plane's side of the manager: one thread hop to build a context, one to record its answer.

Fails open: whatever the manager raises that is not the caller's to put right, the request goes on as it came, the
response says so, and it is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

from ctxmem import chat
from ctxmem.errors import CtxmemError, InvalidInput
from ctxmem.ledger import CacheTerms
from ctxmem.manager import Call, ContextManager, Prepared
from ctxmem.ports import SlotName
from ctxmem.types import Budget
from ctxmem.wires.completion import Answer
from ctxmem.wires.splice import Body, check_depth
from ctxmem.wires.wire import Wire
from service.errors import CLIENT_ERRORS
from service.metrics import Metrics
from service.settings import Upstream
from service.wire.headers import Directives, header_safe
from service.worker.behind import Behind

Made = TypeVar("Made")

_log = logging.getLogger("ctxmem.gateway")


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of one request.

    Attributes:
        content: the JSON body to forward.
        action: what was done, for the response header.
        prepared: the manager's account; None when the request goes on without it.
        behind: the compressed memory that a local model may read in place of a message of `content`.
    """

    content: bytes
    action: str
    prepared: Prepared | None = None
    behind: Behind | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response headers that tell of it."""
        told = [(b"x-ctxmem-action", header_safe(self.action))]
        if self.prepared is not None:
            done = self.prepared
            told += [
                (b"x-ctxmem-request-id", header_safe(done.request_id)),
                (b"x-ctxmem-session", header_safe(done.session_id)),
                (b"x-ctxmem-tokens", b"%d;%d" % (done.tokens_before, done.tokens_after)),
            ]
        return told


class Memory:
    """Builds contexts and records answers.

    Args:
        manager: the manager of all tenants.
        threads: where its work runs; as many at once as it has threads.
        metrics: what is counted.
    """

    def __init__(self, manager: ContextManager, threads: Executor, metrics: Metrics) -> None:
        self._manager = manager
        self._threads = threads
        self._metrics = metrics

    async def build(self, tenant: str, wire: Wire, body: Body, asked: Directives, upstream: Upstream) -> Turn:
        """Make the context of a request. It is durable when this returns.

        Raises:
            InvalidInput: the request is malformed.
            BudgetError: the pinned part is larger than the budget.
            Conflict: another turn of the session came first, again and again.
        """
        future: Future[Prepared] = self._threads.submit(self._prepare, tenant, wire, body, asked, upstream)
        try:
            outcome = await _outcome(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda late: self._abandon(tenant, late))
            raise
        prepared, error = outcome
        if prepared is None:
            if isinstance(error, CLIENT_ERRORS) and asked.mode == "on":
                raise error
            return Turn(body.content, f"bypass;reason={self._skip('build', error)}")
        self._metrics.tokens.labels("in").inc(prepared.tokens_before)
        self._metrics.tokens.labels("out").inc(prepared.tokens_after)
        self._metrics.tokens.labels("saved").inc(max(0, prepared.tokens_before - prepared.tokens_after))
        if not prepared.changed or asked.mode == "observe":
            return Turn(body.content, _told(prepared), prepared)
        return Turn(wire.edited(body, prepared.messages), _told(prepared), prepared, _behind(tenant, prepared))

    async def record(self, tenant: str, turn: Turn, read: Callable[[], Answer]) -> None:
        """Keep an answer. It is durable when this returns, or the failure is logged and counted.

        Args:
            tenant: whose it is.
            turn: the request it answers.
            read: makes the answer out of the upstream's bytes; runs in the thread.
        """
        if turn.prepared is None:
            return
        request_id = turn.prepared.request_id
        answer, error = await _outcome(self._threads.submit(self._answer, tenant, request_id, read))
        if answer is None:
            self._skip("answer", error)
            return
        usage = answer.usage
        for kind, tokens in _cache_tokens(usage).items():
            self._metrics.cache_tokens.labels(kind).inc(tokens)

    def _prepare(self, tenant: str, wire: Wire, body: Body, asked: Directives, upstream: Upstream) -> Prepared:
        manager = self._manager.for_tenant(tenant)
        session_id = asked.session_id or body.session()
        slices = wire.messages(body)
        for i, raw in enumerate(slices):
            check_depth(raw, param=f"{wire.field}[{i}]")
        reserve = wire.reserve(body)
        call = Call(
            messages=chat.parse_all(slices),
            model=body.text("model") or "",
            session_id=manager.session(session_id).id if session_id else None,
            user_id=asked.user_id,
            budget=asked.budget or _window(upstream, reserve),
            reserve=reserve,
            tools=wire.chat_tools(body),
            policy=asked.policy,
            mode="observe" if asked.mode == "observe" else "on",
            retry=asked.retry,
            cache=cache_terms(upstream),
        )
        return manager.build(call)

    def _answer(self, tenant: str, request_id: str, read: Callable[[], Answer]) -> Answer:
        """Log every choice; the first one last, so that the session goes on from it."""
        answer = read()
        manager = self._manager.for_tenant(tenant)
        refused: InvalidInput | None = None
        for message in reversed(answer.messages or (None,)):
            try:
                manager.answer(request_id, message, answer.more, complete=answer.complete, usage=answer.usage)
            except InvalidInput as error:
                refused = error
        if refused is not None:
            raise refused
        return answer

    def _abandon(self, tenant: str, late: Future[Prepared]) -> None:
        """Close the request of a client that left while it was built."""
        if late.exception() is None:
            self._threads.submit(self._answer, tenant, late.result().request_id, nothing)

    def _skip(self, step: str, error: BaseException | None) -> str:
        reason = error.code if isinstance(error, CtxmemError) else "internal_error"
        _log.warning("%s failed, the request goes on without memory: %s", step, reason, exc_info=error)
        self._metrics.skipped.labels(reason).inc()
        return reason


def _told(prepared: Prepared) -> str:
    receipt = prepared.receipt
    return f"{receipt.action};reason={receipt.reason}" if receipt.reason else receipt.action


def _behind(tenant: str, prepared: Prepared) -> Behind | None:
    """The memory that the plan names, and where the message stands that tells the same as text."""
    named = {segment.memory for segment in prepared.plan.segments if segment.memory}
    places = (at for at, message in enumerate(prepared.messages) if message.id in named)
    at = next(places, None) if named else None
    return None if at is None else Behind(SlotName(tenant, prepared.session_id, prepared.messages[at].id), at)


def nothing() -> Answer:
    """The answer of an upstream that gave none."""
    return Answer(complete=False)


def _cache_tokens(usage: Mapping[str, int]) -> dict[str, int]:
    """Prompt tokens by what the provider's cache did with them; each provider names them in its own way."""
    read = usage.get("cached_tokens", usage.get("cache_read_input_tokens", 0))
    written = usage.get("cache_write_tokens", usage.get("cache_creation_input_tokens", 0))
    apart = "cache_read_input_tokens" in usage  # Anthropic counts these beside the input, the others within it
    sent = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    return {"read": read, "write": written, "uncached": sent if apart else max(0, sent - read - written)}


def cache_terms(upstream: Upstream) -> CacheTerms:
    """How an upstream prices its prompt cache."""
    return CacheTerms(
        read=upstream.read_price, write=upstream.write_price, ttl=upstream.cache_ttl_s, kind=upstream.cache
    )


def _window(upstream: Upstream, reserve: int) -> Budget | None:
    """The budget that the upstream's settings give, if they do."""
    return Budget(upstream.window, min(reserve, upstream.window - 1)) if upstream.window else None


async def _outcome(future: Future[Made]) -> tuple[Made | None, BaseException | None]:
    """What a thread's work gave or raised. A cancelled wait leaves the work running."""
    waiter = asyncio.wrap_future(future)
    await asyncio.wait([waiter])
    error = waiter.exception()
    return (None, error) if error is not None else (waiter.result(), None)
