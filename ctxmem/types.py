"""Values that every part of ctxmem speaks. All are frozen; none does I/O.

A `Message` is exactly what was said. A `Segment` is the piece of a message that a plan can keep, shorten or drop.
A `Decision` is one edit of the context, with its reason. Records of the log live in `ctxmem.records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ctxmem.errors import InvalidInput

PartKind = Literal["text", "tool_call", "tool_result", "opaque", "sealed"]
SegmentKind = Literal[
    "system", "text", "tool_call", "tool_result", "opaque", "sealed", "state", "retrieved", "fold", "scope"
]
Verdict = Literal["kept", "pruned", "folded", "consolidated", "retrieved", "dropped", "memory"]
Action = Literal["prune", "fold", "consolidate", "retrieve", "drop", "memory", "skip"]

OURS: frozenset[SegmentKind] = frozenset({"state", "retrieved", "fold", "scope"})
"""Kinds of what ctxmem puts into a context: nobody said it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a message's content.

    Attributes:
        kind: `text`; `tool_call` for the JSON of the message's tool calls; `tool_result` for the text of a result that
            stands among other content; `opaque` for images, audio, files; `sealed` for what must go as it came, such as
            signed reasoning and a server's own tools.
        text: the text, or the piece's JSON for the other kinds.
    """

    kind: PartKind
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """Exactly what was said.

    Attributes:
        role: developer, system, user, assistant, tool or function.
        parts: the content in order; tool calls come last.
        id: event id once logged, else a position id given by the layout.
        name: the speaker's or the function's name.
        tool_call_id: for a tool's answer, the call it answers.
        tool_call_ids: for an assistant message, the calls it makes.
        raw: the JSON bytes as they came; None when the message was built or edited here.
        kind: `state`, `retrieved`, `fold` or `scope` (the mark of a scope that was opened or has ended) for what ctxmem
            put in; None for what was said.
        answers: the calls answered by results that stand among other content.
        native: whether `raw` has another shape than OpenAI chat's.
        bound: whether it stays together with the assistant's messages beside it.
    """

    role: str
    parts: tuple[Part, ...]
    id: str = ""
    name: str | None = None
    tool_call_id: str | None = None
    tool_call_ids: tuple[str, ...] = ()
    raw: bytes | None = None
    kind: SegmentKind | None = None
    answers: tuple[str, ...] = ()
    native: bool = False
    bound: bool = False

    @property
    def text(self) -> str:
        """The text parts, joined by nothing."""
        return "".join(part.text for part in self.parts if part.kind == "text")

    @property
    def readable(self) -> str:
        """All parts but images, audio and files, one after the other on lines of their own."""
        return "\n".join(part.text for part in self.parts if part.kind != "opaque")


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of context that lives or dies as one.

    Attributes:
        id: unique in the plan; `<message id>:<part index>` for a piece of a message.
        role: role of the message it belongs to.
        kind: what it is, which decides which transforms may touch it.
        text: what would be sent.
        tokens: what it costs in the target model, its share of the chat template included.
        sources: ids of the events it stands for.
        pinned: the verbs refuse to change it.
        frozen: it was sent before and is replayed byte for byte; the verbs refuse it outside an epoch.
        group: what must be dropped or kept together (a tool call and its results, the parts of one message).
        memory: handle on compressed key/value memory that only a local model can attend to.
        shortened: its text is already a shortened form, which transforms do not shorten again.
    """

    id: str
    role: str
    kind: SegmentKind
    text: str
    tokens: int
    sources: tuple[str, ...] = ()
    pinned: bool = False
    frozen: bool = False
    group: str | None = None
    memory: str | None = None
    shortened: bool = False

    @property
    def locked(self) -> bool:
        """Whether the verbs refuse to change it."""
        return self.pinned or self.frozen

    @property
    def ours(self) -> bool:
        """Whether ctxmem put it in: nobody said it."""
        return self.kind in OURS


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose context a plan is; empty for a plan that belongs to nobody.

    Attributes:
        tenant: whose data may be read.
        session_id: the session.
        user_id: whose session it is; empty when nobody said.
        branch: the session's branch.
        turn: the request's turn in the session, from 1.
        depth: events of the branch that the plan is laid out from, those of this request included.
    """

    tenant: str = ""
    session_id: str = ""
    user_id: str = ""
    branch: int = 0
    turn: int = 0
    depth: int = 0


NOBODY = Scope()


@dataclass(frozen=True, slots=True)
class Budget:
    """How many prompt tokens a request may take.

    Attributes:
        window: tokens in all.
        reserve: tokens of the window kept free for the answer.
    """

    window: int
    reserve: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("budget", self.window, 1), ("reserve", self.reserve, 0)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidInput(f"{name} must be a whole number of tokens, got {value!r}", param=name)
            if value < least:
                raise InvalidInput(f"{name} must be at least {least} tokens, got {value}", param=name)
        if self.reserve >= self.window:
            raise InvalidInput(f"reserve ({self.reserve}) leaves nothing of a budget of {self.window}", param="reserve")

    @classmethod
    def of(cls, tokens: int | Budget | None) -> Budget | None:
        """A budget as callers give it: tokens in all, a budget, or none."""
        return cls(tokens) if isinstance(tokens, int) else tokens

    @property
    def limit(self) -> int:
        """Tokens the rendered request may take."""
        return self.window - self.reserve


UNLIMITED = Budget(window=2**53)
"""The budget of a request whose caller and model set none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One edit of the context.

    Attributes:
        step: the transform that made it.
        action: what was done.
        segments: ids of the segments it touched.
        tokens: change in tokens; negative when it saved some.
        why: the reason in a few words.
    """

    step: str
    action: Action
    segments: tuple[str, ...]
    tokens: int
    why: str


@dataclass(frozen=True, slots=True)
class Item:
    """What became of one event in one request.

    Attributes:
        event_id: the event.
        item_id: handle for `restore`.
        decision: its fate.
        stage: the step that decided it; empty when it was kept.
        reason: why.
        tokens_before: cost in full.
        tokens_after: cost as sent; 0 when it was left out.
    """

    event_id: str
    item_id: str
    decision: Verdict
    stage: str
    reason: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one request was made of: each event of its history exactly once. Wire shape: `GET /v1/requests/{id}`.

    Attributes:
        id: request id.
        session_id: session it belongs to.
        model: target model as the caller named it.
        exact: whether tokens were counted with the model's own tokenizer and template.
        mode: off, observe or on.
        policy: name of the policy used.
        limit: prompt tokens allowed.
        reserve: tokens kept free for the answer.
        tokens: prompt tokens of the request as rendered.
        parts: tokens by part: system, tools, state, retrieved, history, query.
        stable_prefix_tokens: leading tokens that equal those of the session's last request.
        action: pass, arrival, epoch or bypass.
        reason: why that action.
        items: the events' fates in order.
        timings: milliseconds by stage.
    """

    id: str
    session_id: str
    model: str
    exact: bool
    mode: str
    policy: str
    limit: int
    reserve: int
    tokens: int
    parts: Mapping[str, int]
    stable_prefix_tokens: int
    action: str
    reason: str
    items: Sequence[Item] = ()
    timings: Mapping[str, float] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """The receipt as `GET /v1/requests/{id}` gives it; the budget's limit is null when nobody set one."""
        limit = self.limit if self.limit < UNLIMITED.limit else None
        return {
            "id": self.id,
            "session_id": self.session_id,
            "model": self.model,
            "exact": self.exact,
            "mode": self.mode,
            "policy": self.policy,
            "action": self.action,
            "reason": self.reason,
            "budget": {"limit": limit, "reserve": self.reserve, "tokens": self.tokens},
            "parts": dict(self.parts),
            "stable_prefix_tokens": self.stable_prefix_tokens,
            "items": [asdict(item) for item in self.items],
            "timings": dict(self.timings),
        }
