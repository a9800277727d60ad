"""Bodies that callers send to the control plane, and the receipts they get, as they stand on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctxmem.compressors.units import UnitName
from ctxmem.manager import receipts
from ctxmem.records import Erasure, RequestRecord, Session
from ctxmem.types import Budget

Text = Annotated[str, Field(max_length=256)]
Tokens = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Message = dict[str, Any]


class Wire(BaseModel):
    """A body that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ContextRequest(Wire):
    """`POST /v1/context`: build the context, call no model."""

    messages: list[Message]
    model: Text = ""
    budget: Tokens | None = None
    reserve: Tokens = 0
    session_id: Text | None = None
    user_id: Text = ""
    policy: Text | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def limits(self) -> Budget | None:
        """The budget, when one is given; raises `InvalidInput` when it leaves no room."""
        return Budget(self.budget, self.reserve) if self.budget is not None else None


class CompressRequest(Wire):
    """`POST /v1/compress`: shorten a text or messages once; what has to do with `query` stays first.

    With `mark`, a text that is shortened ends in a mark with the handle that `ctx_restore` takes. The original is
    erased with `session_id`, a session that is there; without one it stays.
    """

    text: str | None = None
    messages: list[Message] | None = None
    budget: Tokens | None = None
    ratio: float | None = None
    query: str | None = None
    mark: bool = False
    unit: UnitName = "phrase"
    model: Text = ""
    session_id: Text = ""

    @model_validator(mode="after")
    def _one_source(self) -> CompressRequest:
        _one_of(self.text, self.messages)
        return self


class RestoreRequest(Wire):
    """`POST /v1/tools/ctx_restore`: a tool call's arguments, as the model wrote them."""

    arguments: str | dict[str, Any]


class TokenizeRequest(Wire):
    """`POST /v1/tokenize`: count the tokens of a text, or of a request as rendered."""

    model: Text = ""
    text: str | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> TokenizeRequest:
        _one_of(self.text, self.messages)
        return self


class SessionRequest(Wire):
    """`POST /v1/sessions`: open a session under a name, or under a fresh one."""

    session_id: Text | None = None
    user_id: Text = ""


class AppendRequest(Wire):
    """`POST /v1/sessions/{id}/events`: log messages without building a context."""

    messages: list[Message]
    expected_revision: Tokens | None = None
    user_id: Text = ""


class StateQuery(BaseModel):
    """`GET /v1/sessions/{id}/state`: which version, against which one, and whether to list them and their sources."""

    version: Annotated[int | None, Field(ge=0, le=2**53)] = None
    diff: Annotated[int | None, Field(ge=0, le=2**53)] = None
    history: bool = False
    sources: bool = False


class ReplayRequest(Wire):
    """`POST /v1/requests/{id}/replay`: the bytes that were sent, or what another budget or policy would have made."""

    budget: Tokens | None = None
    reserve: Tokens = 0
    policy: Text | None = None

    @property
    def limits(self) -> Budget | None:
        """The budget, when one is given; raises `InvalidInput` when it leaves no room."""
        return Budget(self.budget, self.reserve) if self.budget is not None else None


def request(record: RequestRecord) -> dict[str, Any]:
    """A request in a list: its receipt without items, and what became of it."""
    account = receipts.receipt(record).wire()
    del account["items"]
    return {
        **account,
        "status": record.status,
        "reply_id": record.reply_id,
        "usage": dict(record.usage),
        "at": record.at,
    }


def session(head: Session) -> dict[str, Any]:
    """A session's head on the wire."""
    return {
        "id": head.id,
        "user_id": head.user_id,
        "agent_id": head.agent_id,
        "revision": head.revision,
        "events": head.events,
        "turns": head.turn,
        "branches": head.branches,
        "created_at": head.created_at,
        "updated_at": head.updated_at,
    }


def erasure(done: Erasure) -> dict[str, Any]:
    """The receipt of a deletion on the wire."""
    counts = dict(done.counts)
    return {"id": done.id, "scope": done.scope, "counts": counts, "ids_sha256": done.ids_sha256, "at": done.at}


def _one_of(text: str | None, messages: list[Message] | None) -> None:
    if (text is None) == (messages is None):
        raise ValueError("give text or messages, one of them")
