"""The wires there are, by path."""

from __future__ import annotations

from collections.abc import Mapping

from ctxmem.wires import completion, messages, responses, sse
from ctxmem.wires.completion import Answer
from ctxmem.wires.wire import Wire

CHAT = Wire(
    path="/chat/completions",
    field="messages",
    limits=("max_completion_tokens", "max_tokens"),
    endings=sse.ENDINGS,
    read=completion.read,
    assemble=sse.assemble,
)
MESSAGES = Wire(
    path="/messages",
    field="messages",
    header="system",
    limits=("max_tokens",),
    endings=messages.ENDINGS,
    read=messages.read,
    assemble=messages.assemble,
    tools=messages.tools,
    aside=messages.aside,
    bearer=False,
    plain=messages.plain,
)
RESPONSES = Wire(
    path="/responses",
    field="input",
    header="instructions",
    limits=("max_output_tokens",),
    endings=responses.ENDINGS,
    read=responses.read,
    assemble=responses.assemble,
    tools=responses.tools,
    aside=responses.aside,
    textual=True,
)


def _nothing(body: bytes) -> Answer:
    return Answer(complete=False)


def _untouched(path: str, *, bearer: bool = True) -> Wire:
    """A route whose requests pass as they came: they ask about a conversation and are no part of it."""
    return Wire(path, "", (), (), _nothing, _nothing, aside=lambda body: "not_a_turn", bearer=bearer)


WIRES: Mapping[str, Wire] = {
    wire.path: wire
    for wire in (
        CHAT,
        MESSAGES,
        RESPONSES,
        _untouched("/messages/count_tokens", bearer=False),
        _untouched("/responses/compact"),
        _untouched("/responses/input_tokens"),
    )
}
