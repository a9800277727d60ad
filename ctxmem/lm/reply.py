"""What a reply is asked to be, and what comes of it. Values only: importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctxmem.errors import InvalidInput

FinishReason = Literal["stop", "length"]


class PromptTooLong(InvalidInput):
    """The prompt leaves no room for an answer in the model's window."""

    code = "context_length_exceeded"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn. The names and meanings are those of OpenAI's chat completions.

    Attributes:
        max_tokens: most tokens of the reply; None for all the window leaves.
        temperature: 0 takes the likeliest token always.
        top_p: draw from the likeliest tokens that together have this probability.
        seed: makes draws repeatable; None draws afresh.
        stop: the reply ends before the first of these strings.
        top_logprobs: give each token's log-probability and this many alternatives; None gives neither.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A chosen token.

    Attributes:
        id: its id.
        logprob: ln of its probability at temperature 1; None when it was not asked for.
        top: the likeliest ids with their log-probabilities.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step gave.

    Attributes:
        text: text that may be sent now; empty while the prompt is read or a character is not whole.
        token: the token chosen in this step, if one was.
    """

    text: str
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """How a reply ended.

    Attributes:
        finish_reason: `stop` at the model's end token or a stop string, `length` at a limit.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens of the reply, the end token not counted.
        cached_tokens: prompt tokens that did not have to be read again.
        memory_slots: key/value positions of compressed memory that stood before the prompt.
        memory_bytes: what those take.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    memory_slots: int = 0
    memory_bytes: int = 0
