"""One call that writes: what it says, what it answers, and how the same call is known again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from ctxmem import chat
from ctxmem.errors import CtxmemError, InvalidInput
from ctxmem.memories.asked import Outcome, Terms
from ctxmem.memories.statements import Statement, statements
from ctxmem.memories.writing import Candidate, source
from ctxmem.memory import Scope
from ctxmem.ports import Complete, MemoryStore
from ctxmem.types import Message

MOST_TEXT = 1_000_000
"""Characters that one call may tell."""

MOST_MESSAGES = 2_000
_READ = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Told:
    """What became of what was told.

    Attributes:
        results: one for each statement, in order.
        inferred: whether a model found the statements; False also when it was asked for and failed.
        refused: candidates of the model that did not quote their source.
    """

    results: tuple[Outcome, ...]
    inferred: bool = False
    refused: int = 0

    def packed(self) -> bytes:
        """The answer without words, as it is kept under an idempotency key."""
        rows = [[one.id, one.event, one.supersedes] for one in self.results]
        return json.dumps({"results": rows, "inferred": self.inferred, "refused": self.refused}).encode()


def replayed(packed: bytes, store: MemoryStore, tenant: str) -> Told:
    """The first answer of a call; the words of what has been deleted since are empty."""
    kept = json.loads(packed)
    texts = {one.id: one.text for one in store.kept(tenant, [row[0] for row in kept["results"]])}
    rows = tuple(Outcome(id, texts.get(id, ""), event, older) for id, event, older in kept["results"])
    return Told(rows, kept["inferred"], kept["refused"])


def heard(told: str | Sequence[Mapping[str, Any] | Message]) -> tuple[Message, ...]:
    """What was told, as messages.

    Raises:
        InvalidInput: nothing, too much, or no messages.
    """
    messages = (chat.build("user", told),) if isinstance(told, str) else chat.parse_all(told)
    size = sum(len(message.text) for message in messages)
    if not messages or not any(message.text.strip() for message in messages):
        raise InvalidInput("nothing was told", param="messages")
    if size > MOST_TEXT or len(messages) > MOST_MESSAGES:
        raise InvalidInput(f"at most {MOST_TEXT} characters in {MOST_MESSAGES} messages at once", param="messages")
    return tuple(messages)


def asked_digest(messages: Sequence[Message], who: Scope, terms: Terms, *, infer: bool) -> bytes:
    """16 bytes that tell one call from another."""
    said = [[message.role, message.name, message.text] for message in messages]
    asked = json.dumps([said, asdict(who), asdict(terms), infer], sort_keys=True)
    return blake2b(asked.encode("utf-8", "replace"), digest_size=16).digest()


def result_of(
    messages: Sequence[Message], seats: Sequence[tuple[str, str] | None] | None, complete: Complete | None
) -> tuple[list[Candidate], bool, int]:
    """The statements of a call with their sources; whether a model found them; how many it made up.

    Args:
        messages: what was told.
        seats: event and session of each; None for one that ctxmem put in, and for all of them without a log.
        complete: asks a model; None for none.
    """
    read = [
        (i, message.name or message.role, message.text)
        for i, message in enumerate(messages)
        if message.role in _READ and (seats is None or seats[i] is not None)
    ]
    said = [(speaker, text) for _, speaker, text in read]
    found = [(number, one) for number, (who, text) in enumerate(said) for one in statements(text, who)]
    method, refused = "verbatim", 0
    if complete is not None and said:
        inferred, refused = _asked(said, complete)
        if inferred is not None:
            found, method = inferred, "llm"
    made = []
    for number, statement in found:
        at, _, text = read[number]
        seat = seats[at] if seats is not None else None
        cited = (source(*seat, text, (statement.start, statement.end)),) if seat is not None else ()
        made.append(Candidate(statement, cited, method))
    return made, method == "llm", refused


def _asked(said: Sequence[tuple[str, str]], complete: Complete) -> tuple[list[tuple[int, Statement]] | None, int]:
    """What a model finds; None when it fails, or gives nothing that stands on what was said."""
    from ctxmem.memories.extraction import extracted  # here: few ask for it, and it loads asyncio

    try:
        found, refused = extracted(said, complete)
    except (CtxmemError, OSError, TimeoutError):
        return None, 0
    return found or None, refused
