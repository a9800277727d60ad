"""What a chat completion answered, as far as the log wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Answer:
    """An upstream's answer.

    Attributes:
        messages: JSON of each choice's message, in the order of the choices.
        more: JSON of the items that come after the one choice.
        complete: whether it came to its end.
        usage: the upstream's token numbers, nested ones by their own name.
    """

    messages: tuple[bytes, ...] = ()
    complete: bool = True
    usage: Mapping[str, int] = field(default_factory=dict)
    more: tuple[bytes, ...] = ()


class _Choice(msgspec.Struct):
    message: msgspec.Raw = msgspec.Raw(b"null")
    index: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Any = None


def read(body: bytes) -> Answer:
    """The answer in a completion that was not streamed; nothing when the body is no completion."""
    try:
        completion = msgspec.json.decode(body, type=_Completion)
        body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Answer(complete=False)
    choices = sorted(completion.choices, key=lambda choice: choice.index)
    messages = tuple(bytes(choice.message) for choice in choices if bytes(choice.message) != b"null")
    return Answer(messages, complete=bool(messages), usage=usage_of(completion.usage))


def usage_of(usage: Any) -> dict[str, int]:
    """Whole numbers of a usage object; details such as `cached_tokens` under their own name."""
    if not isinstance(usage, dict):
        return {}
    flat: dict[str, int] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            flat |= {key: number for key, number in usage_of(value).items() if key not in flat}
        elif isinstance(value, int) and not isinstance(value, bool):
            flat[name] = value
    return flat
