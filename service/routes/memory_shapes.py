"""Long-term memories on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, model_validator

from ctxmem.memories import Found, Hit, Profile, Scope, Selection, Terms, Told, Wanted
from ctxmem.memory import Memory, MemoryChange
from service.routes.shapes import Message, Text, Wire

Moment = Annotated[float, Field(strict=True, ge=-1e12, le=1e12, allow_inf_nan=False)] | AwareDatetime
"""Seconds since 1970, or an ISO date with its zone."""

Long = Annotated[str, Field(max_length=1_000_000)]


class Owned(Wire):
    """A body that says whose memories it is about."""

    user_id: Text = ""
    agent_id: Text = ""
    session_id: Text = ""

    @property
    def who(self) -> Scope:
        """Whose."""
        return Scope(self.user_id, self.agent_id, self.session_id)


class AddRequest(Owned):
    """`POST /v1/memories`: keep what was told, a text or messages."""

    text: Long | None = None
    messages: list[Message] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    valid_from: Moment | None = None
    expires_at: Moment | None = None
    infer: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> AddRequest:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give text or messages, one of them")
        return self

    @property
    def terms(self) -> Terms:
        """What the new memories carry."""
        return Terms(self.metadata, seconds(self.valid_from), seconds(self.expires_at))


class SearchRequest(Owned):
    """`POST /v1/memories/search`: the memories that answer a query."""

    query: Long
    top_k: Annotated[int, Field(strict=True)] = 10
    filters: dict[str, Any] | None = None
    threshold: float = 0.0
    as_of: Moment | None = None
    rerank: bool = False
    whole: bool = False
    explain: bool = False

    @property
    def wanted(self) -> Wanted:
        """How to search."""
        return Wanted(self.top_k, self.filters, self.threshold, seconds(self.as_of), self.rerank, self.whole)


class UpdateRequest(Wire):
    """`PATCH /v1/memories/{id}`: put a memory right; what is not given stays."""

    text: Long | None = None
    metadata: dict[str, Any] | None = None
    valid_from: Moment | None = None
    expires_at: Moment | None = None

    def terms(self, kept: Memory) -> Terms | None:
        """What the memory carries from now on; None when nothing of it was given."""
        given = self.model_fields_set
        if not given & {"metadata", "valid_from", "expires_at"}:
            return None
        metadata = kept.metadata if self.metadata is None else self.metadata
        until = seconds(self.expires_at) if "expires_at" in given else kept.expires_at
        return Terms(metadata, seconds(self.valid_from), until)


class ForgetRequest(Owned):
    """`POST /v1/memories/forget`: delete memories by what they are; unless told otherwise only say which."""

    about: Long = ""
    filters: dict[str, Any] | None = None
    before: Moment | None = None
    expired: bool = False
    everything: bool = False
    dry_run: bool = True

    @property
    def selection(self) -> Selection:
        """Which memories."""
        return Selection(self.about, self.filters, seconds(self.before), self.expired, self.everything)


class ImportRequest(Owned):
    """`POST /v1/memories/import`: bring memories in, of ours or of mem0's shape."""

    memories: Annotated[list[dict[str, Any]], Field(min_length=1)]


def seconds(moment: float | datetime | None) -> float | None:
    """A moment as seconds since 1970."""
    return moment.timestamp() if isinstance(moment, datetime) else moment


def told(done: Told) -> dict[str, Any]:
    """What became of what was told."""
    results = [
        {"id": one.id, "memory": one.text, "event": one.event}
        | ({"supersedes": one.supersedes} if one.supersedes else {})
        for one in done.results
    ]
    return {"results": results, "inferred": done.inferred, "refused": done.refused}


def memory(one: Memory) -> dict[str, Any]:
    """A memory."""
    return {
        "id": one.id,
        "memory": one.text,
        "user_id": one.user_id or None,
        "agent_id": one.agent_id or None,
        "session_id": one.session_id or None,
        "speaker": one.speaker,
        "topic": one.topic or None,
        "status": one.status,
        "method": one.method,
        "valid_from": one.valid_from,
        "valid_to": one.valid_to,
        "recorded_at": one.recorded_at,
        "expires_at": one.expires_at,
        "supersedes": one.supersedes or None,
        "superseded_by": one.superseded_by or None,
        "revision": one.revision,
        "metadata": dict(one.metadata),
        "sources": [{"event_id": each.event_id, "start": each.start, "end": each.end} for each in one.sources],
    }


def found(done: Found, *, explain: bool) -> dict[str, Any]:
    """What a search gave."""
    return {"results": [_hit(hit, explain=explain) for hit in done.hits], "ranked_by": done.by}


def _hit(hit: Hit, *, explain: bool) -> dict[str, Any]:
    shown = {**memory(hit.memory), "score": hit.score}
    if hit.beside:
        shown |= {"message": hit.text, "beside": [one.id for one in hit.beside]}
    return shown | ({"explain": dict(hit.why)} if explain else {})


def history(changes: Sequence[MemoryChange]) -> dict[str, Any]:
    """What was done to a memory."""
    rows = [
        {"event": one.op, "before": one.before, "after": one.after, "reason": one.reason, "at": one.at}
        for one in changes
    ]
    return {"history": rows}


def profile(known: Profile) -> dict[str, Any]:
    """A user as the memories show them."""
    return {
        "user_id": known.user_id,
        "version": known.version,
        "total": known.total,
        "settled": {one.topic.partition(":")[2]: memory(one) for one in known.settled},
        "recent": [memory(one) for one in known.recent],
        "text": known.text(),
    }
