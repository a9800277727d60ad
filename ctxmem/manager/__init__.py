"""The manager: `prepare` a context, `record` the answer. Everything else reads what these two wrote."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ctxmem import chat
from ctxmem.errors import Conflict, InvalidInput, NotFound
from ctxmem.ids import parse_item
from ctxmem.manager import receipts
from ctxmem.manager.build import Built, build
from ctxmem.manager.calls import Appended, Call, Prepared, Replay
from ctxmem.manager.engine import Engine, open_engine
from ctxmem.manager.session import SessionView
from ctxmem.manager.writes import Writes
from ctxmem.plan import ContextPlan
from ctxmem.policy import Parts, Policy, policy
from ctxmem.ports import Scorer
from ctxmem.records import Erasure, RequestRecord
from ctxmem.types import Budget, Message, Receipt

if TYPE_CHECKING:
    from ctxmem.memories import Memories

__all__ = ["Appended", "Call", "ContextManager", "Prepared", "Replay", "Scorer", "SessionView"]

Messages = Sequence[Mapping[str, Any] | Message]
"""Messages in the OpenAI chat shape."""


_MOST_TENANTS = 1024
_MOST_NOTED = 512


def _checked_id(session_id: str | None) -> str | None:
    """A session id as the caller gave it.

    Raises:
        InvalidInput: empty, too long, or with control characters.
    """
    if session_id is None:
        return None
    if not isinstance(session_id, str) or not 0 < len(session_id) <= 256 or not session_id.isprintable():
        raise InvalidInput("a session id is 1 to 256 printable characters", param="session_id")
    return session_id


class ContextManager:
    """Keeps sessions whole in a database and builds the context of each call under a token budget.

    >>> cm = ContextManager("sqlite://")
    >>> plan = cm.prepare("chat-42", [{"role": "user", "content": "Hello"}], budget=1024)
    >>> plan.messages()
    [{'role': 'user', 'content': 'Hello'}]
    >>> event_id = cm.record("chat-42", "Hi! What can I do for you?")
    >>> cm.close()
    """

    def __init__(
        self,
        url: str | Engine = "sqlite:///ctxmem.db",
        *,
        tenant: str = "default",
        model: str = "",
        policy: str | Policy = "balanced",
        scorer: str = "lexical",
        redis_url: str | None = None,
    ) -> None:
        """Open a manager.

        Args:
            url: the database, or an engine that is already open; `sqlite://` keeps nothing.
            tenant: whose data this manager sees.
            model: target model when a call names none; decides how tokens are counted. Empty means an estimate.
            policy: the policy when a call names none: its name, or one of your own.
            scorer: `lexical`, or a language model by packaged name, path or hub id.
            redis_url: a shared cache; None keeps it in this process.
        """
        opened = url if isinstance(url, Engine) else open_engine(url, redis_url=redis_url, scorer=scorer)
        self.engine = opened
        self.tenant = tenant
        self._model = model
        self._policy = policy.name if isinstance(policy, Policy) else policy
        self._own = policy if isinstance(policy, Policy) else None
        self._scorer = opened.scorer_for(tenant)
        self._policies = {self._own.name: self._own} if self._own is not None else {}
        self.writes = Writes(opened, tenant)
        self._recent: OrderedDict[str, RequestRecord] = OrderedDict()
        self._last: OrderedDict[str, str] = OrderedDict()
        self._siblings: dict[str, ContextManager] = {tenant: self}
        self._policy_named(self._policy)

    @cached_property
    def memories(self) -> Memories:
        """What is kept for later sessions."""
        from ctxmem.manager.told import told_to

        return told_to(self)

    def for_tenant(self, tenant: str) -> ContextManager:
        """The same manager in another tenant's scope."""
        known = self._siblings.get(tenant)
        if known is None:
            known = ContextManager(self.engine, tenant=tenant, model=self._model, policy=self._own or self._policy)
            known._siblings = self._siblings
            while len(self._siblings) >= _MOST_TENANTS:
                self._siblings.pop(next(iter(self._siblings)))
            self._siblings[tenant] = known
        return known

    def _policy_named(self, name: str) -> Policy:
        """The policy behind a name.

        Raises:
            InvalidInput: nobody knows the name.
        """
        if name not in self._policies:
            self._policies[name] = policy(name, Parts(self._scorer, self.engine.deadline, self.engine.state_ahead))
        return self._policies[name]

    def prepare(
        self,
        session: str | None,
        messages: Messages,
        budget: int | Budget | None = None,
        *,
        model: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        policy: str | None = None,
    ) -> ContextPlan:
        """Log what is new and build the context to send.

        Args:
            session: the session's id; None lets the history find it.
            messages: all history, or only what is new since the last call.
            budget: prompt tokens allowed.
            model: target model; decides how tokens are counted.
            tools: tools of the request; they count.
            policy: name of the policy.

        Raises:
            InvalidInput: a message or an argument is wrong; nothing was logged.
            BudgetError: the pinned minimum does not fit; the messages are logged all the same.
            StoreError: the database is out of reach; nothing was logged.
        """
        call = Call(
            messages=chat.parse_all(messages),
            model=model or self._model,
            session_id=_checked_id(session),
            budget=budget if isinstance(budget, Budget) or budget is None else Budget(budget),
            tools=chat.dump_all(tools) if tools else None,
            policy=policy,
        )
        prepared = self.build(call)
        items = receipts.LoggedItems(lambda: tuple(self.receipt(prepared.request_id).items))
        return replace(prepared.plan, receipt=replace(prepared.receipt, items=items))

    def record(self, session: str, reply: str | Mapping[str, Any] | Message) -> str:
        """Log the answer to the session's last request; returns its event id.

        Args:
            session: the session's id.
            reply: the assistant's text, message, or a whole chat completion.
        """
        message = reply if isinstance(reply, Message) else chat.parse(chat.reply(reply), param="reply")
        last = self._last.get(session)
        recorded = self.answer(last, message.raw) if last is not None else None
        return recorded or self.session(session).append([message]).event_ids[0]

    def build(self, call: Call) -> Prepared:
        """Build a context; everything about it is durable on return.

        Raises:
            InvalidInput, BudgetError, StoreError: as `prepare`.
            Conflict: other writers kept coming first.
        """
        call = replace(call, tenant=self.tenant)
        chosen = self._policy_named(call.policy or self._policy)
        built = self.writes.build(call, lambda arrival: build(call, arrival, chosen, self.engine.counters(call.model)))
        request = built.batch.request
        if request is None:
            raise Conflict("the context was not written")
        self._remember(request)
        if built.refused is not None and call.mode == "on":
            raise built.refused
        self.engine.score_ahead(self._scorer, lambda: _arrived(built))
        messages = built.messages if call.mode == "on" else call.messages
        return Prepared(
            request_id=request.id,
            session_id=request.session_id,
            plan=built.plan,
            messages=messages,
            changed=[m.raw for m in messages] != [m.raw for m in call.messages],
            receipt=receipts.receipt(request),
            tokens_before=built.before,
            tokens_after=request.tokens,
        )

    def answer(
        self,
        request_id: str,
        raw: bytes | None,
        more: Sequence[bytes] = (),
        *,
        complete: bool = True,
        usage: Mapping[str, int] | None = None,
    ) -> str | None:
        """Log the answer to a request; durable on return. A second answer becomes a branch.

        Args:
            request_id: the request.
            raw: the assistant message's JSON; None when there was none.
            more: further messages of the same answer, which come after it.
            complete: False when the answer was cut off.
            usage: the upstream's own token counts.

        Returns:
            The answer's event id; None without an answer.
        """
        said = tuple(chat.parse(one, param="reply") for one in (raw, *more) if one is not None)
        request = self._recent.get(request_id) or self._request(request_id)
        return self.writes.answer(request, said, complete=complete, usage=usage or {})

    def receipt(self, request_id: str) -> Receipt:
        """The account of a request: each event of its history exactly once."""
        request = self._request(request_id)
        return receipts.receipt(request, receipts.items(*receipts.seen(self.engine.store, self.tenant, request)))

    def replay(self, request_id: str, *, budget: Budget | None = None, policy: str | None = None) -> Replay:
        """Build a request again from the log; nothing is written.

        Without arguments it gives the bytes that were sent. With a budget or a policy it shows what they would have
        made of the same history.
        """
        request = self._request(request_id)
        events, entries = receipts.seen(self.engine.store, self.tenant, request)
        if budget is None and policy is None:
            messages = receipts.rendered(events, entries)
            account = receipts.receipt(request, receipts.items(events, entries))
            return Replay(messages, receipts.is_identical(request, messages), account)
        tools = self.engine.store.artifact(self.tenant, request.tools_sha) if request.tools_sha else None
        chosen = self._policy_named(policy or request.policy)
        limits = budget or Budget(request.limit + request.reserve, request.reserve)
        return receipts.rebuilt(request, events, chosen, self.engine.counters(request.model), limits, tools)

    def restore(self, item_id: str) -> dict[str, Any]:
        """The original of anything a request shortened or left out."""
        return chat.decode(self.original(item_id))

    def original(self, item_id: str) -> bytes:
        """The same, byte for byte as it came.

        Raises:
            NotFound: this tenant has no such item.
        """
        kind, name = parse_item(item_id)
        if kind == "event":
            event = self.engine.store.event(self.tenant, name)
            found = event.raw if event is not None else None
        else:
            found = self.engine.store.artifact(self.tenant, name)
        if found is None:
            raise NotFound(f"no item {item_id!r}")
        return found

    def session(self, session_id: str, *, user_id: str = "") -> SessionView:
        """A session by id; it need not exist yet."""
        return SessionView(self, _checked_id(session_id) or "", user_id)

    def erase_user(self, user_id: str) -> Erasure:
        """Erase everything of a user: rows, originals, cached state; see `docs/erasure.md`."""
        done = self.engine.erase_user(self.tenant, user_id)
        self.memories.drop(user_id)
        return done

    def close(self) -> None:
        """Finish what is queued and close the database."""
        self.engine.close()

    def _request(self, request_id: str) -> RequestRecord:
        return receipts.find_request(self.engine.store, self.tenant, request_id)

    def _remember(self, request: RequestRecord) -> None:
        """Note the session's last request, for `record` and `answer`."""
        self._recent[request.id] = request
        self._last[request.session_id] = request.id
        for noted in (self._recent, self._last):
            if len(noted) > _MOST_NOTED:
                noted.popitem(last=False)


def _arrived(built: Built) -> list[str]:
    """Texts that are new with a request and may have to be scored at an epoch to come."""
    new = {event.id for event in built.batch.events if event.role in ("user", "tool")}
    return [s.text for s in built.plan.segments if s.id.rpartition(":")[0] in new and s.kind != "opaque"]
