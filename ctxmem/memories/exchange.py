"""Memories out and in: JSON Lines of our own, and the shape that mem0 exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ctxmem.errors import InvalidInput
from ctxmem.ids import new_id
from ctxmem.memories.sameness import digest
from ctxmem.memories.topics import topic
from ctxmem.memory import Memory, Scope

LONGEST = 8_000
"""Characters of a memory that is brought in."""

_TEXTS = ("user_id", "agent_id", "session_id", "speaker", "topic")
_TIMES = ("valid_from", "valid_to", "recorded_at", "invalidated_at", "expires_at")


def written(memory: Memory) -> dict[str, Any]:
    """A memory as a JSON object: its fields, without the digest."""
    row = asdict(memory) | {"metadata": dict(memory.metadata), "sources": [asdict(each) for each in memory.sources]}
    del row["digest"]
    return row


def read(row: Mapping[str, Any], who: Scope, now: float) -> Memory:
    """A new memory from a row of ours or of mem0's (`memory`, `created_at`, `run_id`, `expiration_date`).

    Ids, links and sources are of the place a row comes from and stay there; whose it is, is said by the caller where
    the caller says it.

    Raises:
        InvalidInput: it has no text, or a member of the wrong type.
    """
    if not isinstance(row, Mapping):
        raise InvalidInput("a memory is a JSON object")
    text = row.get("text") or row.get("memory") or row.get("data")
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
        raise InvalidInput(f"a memory has a text of 1 to {LONGEST} characters", param="memory")
    text = " ".join(text.split())
    told = {name: _text(row, name) for name in _TEXTS}
    speaker = told["speaker"] or _text(row, "actor_id") or _text(row, "role") or "user"
    settled = topic(text, speaker)
    times = {name: _time(row.get(name), name) for name in _TIMES}
    made = _time(row.get("created_at"), "created_at")
    return Memory(
        id=new_id("mem"),
        user_id=who.user_id or told["user_id"],
        agent_id=who.agent_id or told["agent_id"],
        session_id=who.session_id or told["session_id"] or _text(row, "run_id"),
        text=text,
        speaker=speaker,
        topic=told["topic"] or (settled.key if settled is not None else ""),
        status="superseded" if row.get("status") == "superseded" else "active",
        method="import",
        valid_from=next((at for at in (times["valid_from"], made) if at is not None), now),
        valid_to=times["valid_to"],
        recorded_at=now,
        invalidated_at=times["invalidated_at"],
        expires_at=times["expires_at"] or _time(row.get("expiration_date"), "expiration_date"),
        digest=digest(text, speaker),
        metadata=_metadata(row),
    )


def as_mem0(memory: Memory) -> dict[str, Any]:
    """A memory in the shape that mem0's `get_all` gives."""
    return {
        "id": memory.id,
        "memory": memory.text,
        "hash": memory.digest.hex(),
        "user_id": memory.user_id or None,
        "agent_id": memory.agent_id or None,
        "run_id": memory.session_id or None,
        "actor_id": memory.speaker or None,
        "metadata": dict(memory.metadata),
        "created_at": _iso(memory.valid_from),
        "updated_at": _iso(memory.recorded_at),
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 256:
        raise InvalidInput(f"{name} is a text of at most 256 characters", param=name)
    return value


def _time(value: Any, name: str) -> float | None:
    """Seconds since 1970 from a number or an ISO date."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} is a time in seconds since 1970, or an ISO date", param=name) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    value = row.get("metadata") or {}
    if not isinstance(value, Mapping):
        raise InvalidInput("metadata is an object", param="metadata")
    return dict(value)
