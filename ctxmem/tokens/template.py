"""Chat templates, rendered as transformers renders them, without transformers.

Source: transformers 5.23, `PreTrainedTokenizerBase.apply_chat_template`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes

from ctxmem.errors import InvalidInput, ModelError
from ctxmem.tokens.sandbox import environment

Chat = list[dict[str, Any]]
"""Messages as a template reads them: decoded JSON."""

_REASONING = ("reasoning_content", "thinking", "reasoning")
_CALL: dict[str, Any] = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {}}}


class ChatTemplate:
    """One compiled chat template.

    Attributes:
        source: the template's text.
        takes_parts: whether it renders content given as a list of parts; else content must be one text.
        takes_null: whether it renders an assistant's message without content.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile a template.

        Args:
            source: the Jinja text.
            special_tokens: `bos_token` and the like, which templates read as variables.

        Raises:
            ModelError: the text is not a Jinja template.
        """
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._environment = environment()
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template does not compile: {error}") from error
        self.takes_parts = self._renders(
            [{"role": "user", "content": [{"type": "text", "text": "~hello~"}]}], "~hello~", never=("'type'", '"type"')
        )
        self.takes_null = self._renders(
            [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [_CALL]}], "", never=("None",)
        )

    @property
    def literals(self) -> str:
        """All text that the template itself writes, joined by null characters."""
        tree = self._environment.parse(self.source)
        written = {node.data for node in tree.find_all(nodes.TemplateData)}
        constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        return "\0".join(sorted(written | constants))

    def render(self, chat: Chat, tools: Sequence[Any] | None = None, *, prompt: bool = True) -> str:
        """The request's text.

        Args:
            chat: the messages.
            tools: the tools' definitions; None without tools.
            prompt: whether to end with the opening of the assistant's answer.

        Raises:
            InvalidInput: the template refuses the messages, such as two user messages in a row.
        """
        try:
            return self._template.render(
                **{**self._special_tokens, "messages": chat, "tools": tools, "documents": None},
                add_generation_prompt=prompt,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InvalidInput(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def shape(self, wire: Mapping[str, Any]) -> dict[str, Any]:
        """A message in the OpenAI shape as this template wants it.

        Nulls go, arguments of tool calls become objects, reasoning is found under each of its names, and content the
        template cannot take as a list becomes its texts, one a line, as vLLM and llama.cpp serve it.
        """
        message = {key: value for key, value in wire.items() if value is not None}
        reasoning = next((message[key] for key in _REASONING if key in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        content = message.get("content")
        if isinstance(content, list) and not self.takes_parts:
            message["content"] = "\n".join(_texts(content))
        elif content is None and not self.takes_null:
            message["content"] = ""
        if "tool_calls" in message:
            message["tool_calls"] = [_with_arguments(call) for call in message["tool_calls"]]
        return message

    def _renders(self, chat: Chat, expected: str, *, never: tuple[str, ...]) -> bool:
        try:
            text = self.render(chat)
        except InvalidInput:
            return False
        return expected in text and not any(trace in text for trace in never)


def _texts(content: Sequence[Any]) -> list[str]:
    return [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _with_arguments(call: Any) -> Any:
    """The call with the JSON text of its arguments decoded, as templates expect it."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}
