"""A stated estimate of tokens for models whose tokenizer is not known. Standard library only.

The estimate is made to lie above the truth, not near it: a request thought to fit must fit. Each class of characters
costs what it costs the worst of three tokenizers of different size (SmolLM2, cl100k, o200k) with a margin; measured on
English it is 1.05 to 1.25 times SmolLM2's count. It bounds natural text, code, data and noise such as base64, but is no
proof: text made up to be hard, such as pronounceable nonsense, can take more.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter as Tally
from collections.abc import Callable, Sequence

from ctxmem.tokens.counts import Remembered, well_formed
from ctxmem.types import Message, Part

IMAGE_TOKENS = 2_880
"""Tokens taken for an image, sound or file by reference: five tiles of 576, as LLaVA-NeXT cuts a large image."""
MESSAGE_TOKENS = 6
"""Tokens taken for what a chat template writes around a message."""
REQUEST_TOKENS = 32
"""Tokens taken for what a chat template writes once: the generation prompt, a default system message."""
TOOLS_TOKENS = 256
"""Tokens taken for the instructions a chat template gives on the use of tools."""

_OPAQUE = re.compile(r"(?=[A-Za-z]{0,64}[0-9])[A-Za-z0-9+/_=-]{16,}")
"""Base64, hex, ids: a digit before any symbol. It is looked for no farther than 64 letters ahead: time stays linear."""
_WORD = re.compile(r"[A-Z]?[a-z]+")
_FAMILIAR = re.compile(
    "(?i:the|of|and|to|is|for|you|that|it|with|this|are|not|have|was|return|def|class|import|from|const|function|var"
    "|let|null|true|false|if|else|int|void|self|name|type|string|id|data|error|str|node|value|list|frame)"
)
"""Words frequent in English and in code, rare in other languages."""
_FAMILIAR_SHARE = 0.06
"""Share of the words below which a text is taken for another language."""

_Cost = Callable[[int], float]
_CLASSES: tuple[tuple[re.Pattern[str], _Cost], ...] = (
    (re.compile(r"[A-Z]+(?![a-z])"), lambda length: max(1.0, 0.7 * length)),
    (re.compile(r"[0-9]"), lambda length: 1.0),
    (re.compile(r" (?=[0-9])"), lambda length: 1.0),
    (re.compile(r" {2,}|(?<=[\n\r\t]) "), lambda length: 1.0 + length // 16),
    (re.compile(r"\n+|\r+|\t+"), lambda length: 0.75 + 0.25 * length),
    (re.compile(r"[!-/:-@\[-`{-~]+"), lambda length: 0.2 + 0.8 * length),
    (re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"), lambda length: 1.0),
    (re.compile(r"[\x80-\u07ff]"), lambda length: 1.3),
    (re.compile(r"[\u0800-\uabff\ud7a4-\uffff]"), lambda length: 2.7),
    (re.compile(r"[\uac00-\ud7a3]"), lambda length: 3.0),
    (re.compile(r"[\U00010000-\U0010ffff]"), lambda length: 4.0),
)
"""What one match of a pattern costs by its length in characters. A single blank belongs to the word after it."""


class Estimate:
    """A `Counter` that overestimates, for models of unknown tokenizer and template.

    Attributes:
        name: fingerprint.
        exact: False.
        window: context window in tokens; None when unknown.
    """

    name = "estimate:1"
    exact = False

    def __init__(self, *, window: int | None = None) -> None:
        self.window = window
        self._counts = Remembered(lambda texts: [estimate(text) for text in texts])

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Estimated tokens of each text."""
        return self._counts(texts)

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Estimated tokens of each message, `MESSAGE_TOKENS` of the template included."""
        return [MESSAGE_TOKENS + self._content(message) for message in messages]

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """The sum over the messages, `REQUEST_TOKENS`, and the tools laid out with an indent."""
        return sum(self.messages(messages)) + REQUEST_TOKENS + (self._tools(tools) if tools else 0)

    def _content(self, message: Message) -> int:
        names = [name for name in (message.name, message.tool_call_id) if name]
        costly = [part for part in message.parts if _is_media(part)]
        texts = [part.text for part in message.parts if not _is_media(part)]
        return sum(self._counts([*texts, *names])) + IMAGE_TOKENS * len(costly)

    def _tools(self, tools: bytes) -> int:
        text = tools.decode(errors="replace")
        try:
            text = json.dumps(json.loads(tools), indent=4, ensure_ascii=False)
        except (ValueError, RecursionError):
            text = text + " " * len(text)
        return TOOLS_TOKENS + self._counts([text])[0]


def estimate(text: str) -> int:
    """Tokens a text takes at most in the tokenizers this was fitted to; never more than its bytes in UTF-8."""
    text = well_formed(text)
    opaque = sum(map(len, _OPAQUE.findall(text)))
    rest = _OPAQUE.sub(" ", text) if opaque else text
    total = opaque + _words(rest)  # a character of noise is nearly a token
    for pattern, cost in _CLASSES:
        total += _cost(pattern, rest, cost)
    return min(math.ceil(total), len(text.encode()))


def _words(text: str) -> float:
    """Tokens of the words in lower or mixed case: long ones are cut, and those of other languages finely."""
    words = Tally(_WORD.findall(text))
    familiar = sum(number for word, number in words.items() if _FAMILIAR.fullmatch(word))
    foreign = familiar + 2 < _FAMILIAR_SHARE * (words.total() + 10)
    return sum(number * _word(len(word), foreign=foreign) for word, number in words.items())


def _word(length: int, *, foreign: bool) -> float:
    if length > 20:
        return 0.65 * length
    return max(1.0, 0.55 * length) if foreign else 1.0 + 0.2 * max(0, length - 4)


def _cost(pattern: re.Pattern[str], text: str, cost: _Cost) -> float:
    return sum(number * cost(length) for length, number in Tally(map(len, pattern.findall(text))).items())


def _is_media(part: Part) -> bool:
    """Whether a part is an image, sound or file, whose JSON says nothing of its cost."""
    return part.kind == "opaque"
