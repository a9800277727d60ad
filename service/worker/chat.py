"""OpenAI chat completions: what is asked, as a `Sampling`; what comes of it, as objects and chunks.

Source of the shapes: OpenAI's published API specification, `CreateChatCompletionRequest` and its responses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from ctxmem import chat
from ctxmem.errors import InvalidInput
from ctxmem.types import Message
from service.worker.wire import ChatRequest

if TYPE_CHECKING:
    from ctxmem.lm.reply import Completion, Sampling, Token

TEMPERATURE, TOP_P = 0.2, 0.9
"""How a reply is drawn when the request does not say: what SmolLM2's authors advise."""

Decode = Callable[[int], str]
"""The text of one token id."""

_NULL = b"null"
_SEED_BITS = 2**63


def read(body: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        InvalidInput: it is not JSON, misses a field, has one of a wrong type or range, or asks for what this model
            cannot do and OpenAI's semantics do not let a server ignore.
    """
    try:
        asked = msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), param=_param(str(error))) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not valid JSON: {error}") from error
    for param, wanted in _unsupported(asked).items():
        if wanted:
            raise InvalidInput(f"this model does not support {param} as asked", param=param)
    return asked


def messages(asked: ChatRequest) -> list[Message]:
    """The messages of a request.

    Raises:
        InvalidInput: one is malformed, or holds an image, audio or a file.
    """
    parsed = [chat.parse(bytes(raw), param=f"messages[{at}]") for at, raw in enumerate(asked.messages)]
    for at, message in enumerate(parsed):
        if any(part.kind == "opaque" for part in message.parts):
            param = f"messages[{at}].content"
            raise InvalidInput(f"{param}: this model reads text only", param=param)
    return parsed


def tools(asked: ChatRequest) -> bytes | None:
    """JSON array of the tools the template is to render, None without any."""
    given = bytes(asked.tools)
    return None if given == _NULL or asked.tool_choice == "none" else given


def sampling(asked: ChatRequest) -> Sampling:
    """How the reply is to be drawn.

    Raises:
        ModelError: local models are not installed.
    """
    from ctxmem.lm.reply import Sampling

    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    limits = [limit for limit in (asked.max_completion_tokens, asked.max_tokens) if limit is not None]
    return Sampling(
        max_tokens=min(limits, default=None),
        temperature=TEMPERATURE if asked.temperature is None else asked.temperature,
        top_p=TOP_P if asked.top_p is None else asked.top_p,
        seed=None if asked.seed is None else asked.seed % _SEED_BITS,
        stop=tuple(stop),
        top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the objects of one response share.

    Attributes:
        model: name of the model that answers.
        decode: the text of one token, for log-probabilities.
        id: id of the completion.
        created: Unix time in seconds.
    """

    model: str
    decode: Decode
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]) -> bytes:
        """The whole answer."""
        return msgspec.json.encode({**self._head("chat.completion"), "choices": choices, "usage": usage})

    def chunk(self, choices: Sequence[Mapping[str, Any]], *, usage: Mapping[str, Any] | bool = False) -> bytes:
        """One event of a stream.

        Args:
            choices: the choices that changed.
            usage: the usage; True when it will come in a later event; False when it was not asked for.
        """
        told = {} if usage is False else {"usage": None if usage is True else usage}
        return event({**self._head("chat.completion.chunk"), "choices": choices, **told})

    def delta(self, index: int, delta: Mapping[str, Any], *, token: Token | None = None) -> dict[str, Any]:
        """A choice that goes on."""
        logprobs = self.logprobs([token]) if token else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """The log-probabilities of tokens, None when they were not asked for."""
        content = [
            {**self._token(token.id, token.logprob), "top_logprobs": [self._token(*pair) for pair in token.top]}
            for token in tokens
            if token.logprob is not None
        ]
        return {"content": content, "refusal": None} if content else None

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        text = self.decode(id)
        whole = "\ufffd" not in text
        return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(content: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def usage(completions: Sequence[Completion]) -> dict[str, Any]:
    """The usage of the choices of one request, whose prompt is counted once."""
    prompt, first = completions[0].prompt_tokens, completions[0]
    produced = sum(completion.completion_tokens for completion in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": produced,
        "total_tokens": prompt + produced,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens, **_memory(first)},
    }


def _memory(completion: Completion) -> dict[str, int]:
    """What compressed memory stood before the prompt, where there was one."""
    told = {"memory_slots": completion.memory_slots, "memory_bytes": completion.memory_bytes}
    return told if completion.memory_slots else {}


def _unsupported(asked: ChatRequest) -> dict[str, bool]:
    """What changes the answer in ways this model cannot give, by parameter."""
    format = asked.response_format
    kind = format.get("type", "text") if isinstance(format, dict) else "text"
    return {
        "response_format": kind != "text",
        "tool_choice": asked.tool_choice not in (None, "none", "auto"),
        "modalities": asked.modalities not in (None, ["text"]),
        "logit_bias": bool(asked.logit_bias),
        "frequency_penalty": bool(asked.frequency_penalty),
        "presence_penalty": bool(asked.presence_penalty),
    }


def _param(message: str) -> str | None:
    """The field a validation message names, such as `messages` in "... - at `$.messages`"."""
    path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
    return path or None
