"""Exact counts with a model's own Hugging Face tokenizer and chat template, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctxmem import chat
from ctxmem.errors import InvalidInput, ModelError
from ctxmem.tokens.counts import Remembered
from ctxmem.tokens.folder import load
from ctxmem.tokens.template import Chat, ChatTemplate
from ctxmem.tokens.vocabulary import Rendered, Vocabulary
from ctxmem.types import Message

IMAGE_TOKENS = 2_880
"""Estimate for an image sent to a model that takes images: five tiles of 576, as LLaVA-NeXT cuts a large one."""

_ASK, _ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}
_CALL = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {}}}
_CALLING = {"role": "assistant", "content": "hi", "tool_calls": [_CALL]}
_SURROUNDINGS: Mapping[str, tuple[tuple[Chat, Chat], ...]] = {
    "system": (([], []), ([], [_ASK]), ([_ASK, _ANSWER], [])),
    "assistant": (([_ASK], []),),
    "tool": (([_ASK, _CALLING], []), ([_ASK], [])),
    "user": (([_ASK, _ANSWER], []), ([], [])),
}


class HFCounter:
    """Counts requests as `len(tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True))`.

    What people say is text: a look-alike of a control token (`<|im_end|>` in a user's message) is encoded as the
    characters it is made of, as `sanitize_control_tokens=True` has it. `encode_request` gives the same ids to whoever
    runs the model, so what is counted is what the model reads. Safe to use from many threads.

    Attributes:
        name: fingerprint of tokenizer and template.
        exact: True. A request with an image for a template that takes images holds `IMAGE_TOKENS` for it, an estimate;
            `exact_for` tells such requests apart.
        window: context window in tokens; None when the folder does not say.
    """

    exact = True

    def __init__(self, folder: Path) -> None:
        """Load `tokenizer.json`, the chat template and the window from a folder.

        Raises:
            ModelError: the tokenizers package or the tokenizer's file is missing, or cannot be read.
        """
        found = load(folder)
        self._templates = {name: ChatTemplate(text, found.special) for name, text in found.templates.items()}
        written = "\0".join(template.literals for template in self._templates.values())
        self._vocabulary = Vocabulary(found.tokenizer, written)
        self.name = f"hf:{found.digest}"
        self.window = found.window
        self._shares = Remembered(lambda raws: [self._share(json.loads(raw)) for raw in raws])

    def texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, look-alikes of control tokens read as text."""
        return [self._vocabulary.count(self._vocabulary.guard(text)) for text in texts]

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """Tokens each message adds to a request: what the rendering grows by when it joins a short chat.

        Where the template renders every message on its own, as SmolLM2's does, these sum to `request` but for a
        constant: the generation prompt, and the system message the template puts in when there is none.
        """
        return self._shares([_raw(message).decode() for message in messages])

    def request(self, messages: Sequence[Message], tools: bytes | None = None) -> int:
        """Tokens of the rendered request.

        Raises:
            InvalidInput: the template refuses the messages, or `tools` is not a JSON array.
            ModelError: the model has no chat template.
        """
        wires = [json.loads(_raw(message)) for message in messages]
        return self._count(wires, _tools(tools)) + IMAGE_TOKENS * self._images(wires)

    def encode_request(
        self, messages: Sequence[Message], tools: bytes | None = None, *, prompt: bool = True
    ) -> list[int]:
        """Token ids of the rendered request, to feed to the model.

        Args:
            messages: the chat.
            tools: the tools as a JSON array.
            prompt: whether to end with the opening of the assistant's answer, as `request` counts it.

        Raises:
            InvalidInput: the template refuses the messages, or `tools` is not a JSON array.
            ModelError: the model has no chat template.
        """
        wires = [json.loads(_raw(message)) for message in messages]
        return self._vocabulary.ids(self._render(wires, _tools(tools), prompt=prompt))

    def exact_for(self, messages: Sequence[Message], tools: bytes | None = None) -> bool:
        """Whether the count of this request holds no estimate."""
        return not self._images([json.loads(_raw(message)) for message in messages])

    def _count(self, wires: Chat, tools: list[Any] | None = None, *, prompt: bool = True) -> int:
        return self._vocabulary.count(self._render(wires, tools, prompt=prompt))

    def _render(self, wires: Chat, tools: list[Any] | None, *, prompt: bool) -> Rendered:
        template = self._template(tools)
        control = self._vocabulary.control
        try:
            messages: Chat = [template.shape(wire) for wire in wires]
            marked = control.within(messages) or control.within(tools)
            if marked:
                messages, tools = control.mark(messages), control.mark(tools)
            return Rendered(template.render(messages, tools, prompt=prompt), marked)
        except RecursionError as error:
            raise InvalidInput("the messages or tools are nested too deep to be rendered", param="messages") from error

    def _template(self, tools: list[Any] | None) -> ChatTemplate:
        if not self._templates:
            raise ModelError("this model has no chat template, so requests to it cannot be counted")
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        return self._templates.get(name) or next(iter(self._templates.values()))

    def _share(self, wire: dict[str, Any]) -> int:
        """What a message adds to the first chat around it that the template accepts."""
        role = "system" if wire["role"] in chat.SYSTEM_ROLES else str(wire["role"])
        refusal: InvalidInput | None = None
        for before, after in _SURROUNDINGS.get(role, _SURROUNDINGS["tool"]):
            try:
                with_it = self._count([*before, wire, *after], prompt=False)
                without = self._count([*before, *after], prompt=False) if before or after else 0
            except InvalidInput as error:
                refusal = error
            else:
                return max(0, with_it - without) + IMAGE_TOKENS * self._images([wire])
        raise InvalidInput(f"no chat with a {role} message fits the model's template: {refusal}", param="messages")

    def _images(self, wires: Chat) -> int:
        """Images that the template puts into the request; one that takes text alone leaves them out."""
        if not all(template.takes_parts for template in self._templates.values()):
            return 0
        contents = [wire["content"] for wire in wires if isinstance(wire.get("content"), list)]
        return sum("text" not in part for content in contents for part in content)


def _raw(message: Message) -> bytes:
    """The message's JSON as chat has it, made from its parts when it has none."""
    if message.raw is not None and not message.native:
        return message.raw
    calls = [call for part in message.parts if part.kind == "tool_call" for call in json.loads(part.text)]
    text = "".join(part.text for part in message.parts if part.kind in ("text", "tool_result", "sealed"))
    wire = {"role": message.role, "content": text, "name": message.name, "tool_call_id": message.tool_call_id}
    return chat.dump({**wire, **({"tool_calls": calls} if calls else {})})


def _tools(tools: bytes | None) -> list[Any] | None:
    if tools is None:
        return None
    try:
        found = json.loads(tools)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"tools is not valid JSON: {error}", param="tools") from error
    if not isinstance(found, list):
        raise InvalidInput(f"tools must be an array, got {type(found).__name__}", param="tools")
    return found or None
