"""Control tokens in what people say: `<|im_end|>` typed by a user is text, not the end of a message.

Strings that look like control tokens are wrapped in private marks before the chat template is rendered, so that the
encoder can tell them from the ones the template writes. Source: transformers 5.23, `mark_control_tokens` and
`encode_marked_chat` (`apply_chat_template(sanitize_control_tokens=True)`), whose marks these are. Unlike there, keys of
objects are marked too, a token torn over two text parts is found, and nothing is touched when there is no look-alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

START, END = "\U000f0000", "\U000f0001"
"""The marks around a look-alike; they are taken out of what people say whenever anything is marked."""


class ControlTokens:
    """The strings that steer a model, such as those that open and close a message."""

    def __init__(self, tokens: Collection[str]) -> None:
        self._any = re.compile(any_of(tokens))

    def within(self, value: Any) -> bool:
        """Whether a string anywhere in decoded JSON looks like a control token."""
        if isinstance(value, str):
            return self._any.search(value) is not None
        if isinstance(value, dict):
            return any(self.within(key) or self.within(member) for key, member in value.items())
        return isinstance(value, list) and (any(map(self.within, value)) or self.within(_joined(value)))

    def mark(self, value: Any) -> Any:
        """The decoded JSON with a mark on either side of each look-alike; parts that make one together are joined."""
        if isinstance(value, str):
            return self._any.sub(rf"{START}\g<0>{END}", value.replace(START, "").replace(END, ""))
        if isinstance(value, dict):
            return {self.mark(key): self.mark(member) for key, member in value.items()}
        if isinstance(value, list):
            text = _joined(value)
            members = [{"type": "text", "text": text}] if self.within(text) else value
            return [self.mark(member) for member in members]
        return value


def any_of(tokens: Collection[str]) -> str:
    """A pattern of any of the strings, the longest first; it never matches when there are none."""
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True) if token) or "(?!)"


def _joined(parts: list[Any]) -> str:
    """The text of content that is a list of text parts alone; empty for any other list."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(parts) else ""
