"""Fakes of the ports and builders of conversations, for tests of ctxmem and of what is built on it.

Everything here is exact, deterministic and model-free, so a test can do the sums in its head:

>>> from ctxmem.plan import layout
>>> from ctxmem.types import Budget
>>> said = messages("system: Be brief.", "user: What is six times seven?")
>>> layout(said, Budget(20), WordCounter()).tokens  # 2 + 5 words, 3 for each message, 2 for the request
15
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctxmem import chat
from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.ports import TokenScores
from ctxmem.types import Message

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class WordCounter:
    """A `Counter` for which one whitespace-separated word is one token.

    Attributes:
        overhead: tokens of the template for each message.
        prompt: tokens of the generation prompt, once a request.
        window: the pretended model's context window in tokens.
        exact: what the counter claims of itself.
        name: fingerprint.
    """

    overhead: int = 3
    prompt: int = 2
    window: int | None = None
    exact: bool = True
    name: str = "words"

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        return [len(text.split()) for text in texts]

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Words of all parts of each message, and its overhead."""
        return [self.overhead + sum(len(part.text.split()) for part in message.parts) for message in messages]

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """The sum over the messages, the prompt, and the words of the tools' JSON."""
        return sum(self.messages(messages)) + self.prompt + len((tools or b"").split())


@dataclass(frozen=True, slots=True)
class LengthScorer:
    """A `Scorer` for which a word is a token and tells as many nats as it has characters.

    Attributes:
        pace: seconds that one text is said to take; nothing is waited for.
        name: fingerprint.
        calls: the texts of each `score` call so far, for asserting on.
    """

    pace: float = 0.0
    name: str = "length"
    calls: list[tuple[str, ...]] = field(default_factory=list, compare=False)

    def seconds(self, texts: Sequence[str]) -> float:
        """`pace` for each text."""
        return self.pace * len(texts)

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Score each word by its length.

        Raises:
            Unavailable: `seconds(texts)` is more than the deadline.
        """
        if deadline is not None and self.seconds(texts) > deadline:
            raise Unavailable(f"scoring takes {self.seconds(texts)} s, the deadline is {deadline} s")
        self.calls.append(tuple(texts))
        return [_by_length(text) for text in texts]


@dataclass(frozen=True, slots=True)
class DeadScorer:
    """A `Scorer` that promises speed and raises.

    Attributes:
        error: what it raises.
        name: fingerprint.
    """

    error: Exception = field(default_factory=lambda: Unavailable("the scorer is down"))
    name: str = "dead"

    def seconds(self, texts: Sequence[str]) -> float:
        """Always 0."""
        return 0.0

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Raise `error`."""
        raise self.error


def messages(*said: str | Mapping[str, Any]) -> tuple[Message, ...]:
    """Messages with the ids m0, m1, ...

    Args:
        said: `"role: text"`, or a message as decoded JSON; see `tool_call` and `tool_result`.

    Raises:
        InvalidInput: a string does not start with a role and a colon, or a message is malformed.

    >>> [(m.id, m.role, m.text) for m in messages("user: hi", tool_call("c1"), tool_result("c1", "42"))]
    [('m0', 'user', 'hi'), ('m1', 'assistant', ''), ('m2', 'tool', '42')]
    """
    return tuple(_message(one, f"m{i}") for i, one in enumerate(said))


def tool_call(*ids: str, name: str = "search", arguments: str = "{}", text: str | None = None) -> dict[str, Any]:
    """An assistant message that calls a function once for each id, as decoded JSON."""
    function = {"name": name, "arguments": arguments}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def tool_result(id: str, text: str) -> dict[str, Any]:
    """A tool's answer to the call `id`, as decoded JSON."""
    return {"role": "tool", "tool_call_id": id, "content": text}


def turns(number: int, *, words: int = 8, system: str = "You are a helpful assistant.") -> tuple[Message, ...]:
    """A conversation: a system message, then `number` exchanges of user and assistant, each text of `words` words.

    No two texts are the same.
    """
    said = [f"system: {system}"]
    for i in range(number):
        said += [f"user: {_filler('ask', i, words)}", f"assistant: {_filler('reply', i, words)}"]
    return messages(*said)


def _message(said: str | Mapping[str, Any], id: str) -> Message:
    if isinstance(said, str):
        role, colon, text = said.partition(": ")
        if not colon or role not in chat.ROLES:
            raise InvalidInput(f"start with a role and a colon, such as 'user: hi'; got {said[:40]!r}", param="said")
        return chat.build(role, text, id=id)
    return replace(chat.parse(said), id=id)


def _filler(stem: str, turn: int, words: int) -> str:
    return " ".join(f"{stem}{turn}w{i}" for i in range(words))


def _by_length(text: str) -> TokenScores:
    spans = [match.span() for match in _WORD.finditer(text)]
    return TokenScores(
        starts=tuple(start for start, _ in spans),
        ends=tuple(end for _, end in spans),
        nats=tuple(float(end - start) for start, end in spans),
    )
