"""Chat replies from a local model, step by step, with the key/value cache kept between the turns of a session.

Knows token ids, not messages: the caller renders the prompt with `ctxmem.tokens`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from ctxmem.errors import InvalidInput
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.sampling import Sampler, Sampling, Token
from ctxmem.lm.sessions import Sessions, Snapshot
from ctxmem.lm.stream import Detokenizer, StopStrings

KV_BYTES = 256 * 2**20
"""Memory for the caches of idle sessions: about 11,000 tokens of SmolLM2-135M in bf16."""

PREFILL = 256
"""Prompt tokens read in one step, which is how long a cancelled request may go on."""


class PromptTooLong(InvalidInput):
    """The prompt leaves no room for an answer in the model's window."""

    code = "context_length_exceeded"


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
    """

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class ChatModel:
    """Replies to prompts. For one thread."""

    def __init__(self, lm: CausalLM, *, kv_bytes: int = KV_BYTES) -> None:
        self._lm = lm
        self._sessions = Sessions(max_bytes=kv_bytes)
        self._ends = _end_tokens(lm)

    def reply(
        self, prompt: Sequence[int], sampling: Sampling, *, session: str | None = None
    ) -> Generator[Piece, None, Completion]:
        """Answer a prompt, one step of work at a time. Closing the generator ends it between two steps.

        Args:
            prompt: token ids of the rendered request.
            sampling: how to draw.
            session: whose cached prefix to use and to extend; None uses and keeps none.

        Raises:
            PromptTooLong: the prompt fills the window.
            ModelError: the model's logits are no numbers.
        """
        room = self._lm.window - len(prompt)
        if not prompt or room <= 0:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; this model's context length is {self._lm.window} tokens and "
                "must hold at least one token of prompt and one of answer",
                param="messages",
            )
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        cache, cached = self._sessions.read(session, prompt) if session else (DynamicCache(), 0)
        logits = yield from self._prefill(prompt, cached, cache)
        self._keep(session, prompt, cache)
        reason, produced = yield from self._decode(logits, cache, sampling, limit)
        # The last token was chosen, not read: the cache ends before it.
        read = [*prompt, *produced][: cache.get_seq_length()]
        self._keep(session, read, cache)
        return Completion(reason, len(prompt), len(produced), cached)

    def forget(self, session: str) -> None:
        """Drop what is cached for a session."""
        self._sessions.forget(session)

    def _keep(self, session: str | None, ids: Sequence[int], cache: DynamicCache) -> None:
        if session:
            self._sessions.keep(session, Snapshot.of(ids, cache))

    def _prefill(self, prompt: Sequence[int], cached: int, cache: DynamicCache) -> Generator[Piece, None, Tensor]:
        """Read the rest of the prompt; returns the (vocab,) logits of what follows it."""
        logits = torch.empty(0)
        for start in range(cached, len(prompt), PREFILL):
            logits = self._forward(prompt[start : start + PREFILL], cache)
            yield Piece("")
        return logits

    def _decode(
        self, logits: Tensor, cache: DynamicCache, sampling: Sampling, limit: int
    ) -> Generator[Piece, None, tuple[Literal["stop", "length"], list[int]]]:
        """Draw tokens until an end; returns why it ended and the tokens of the reply."""
        sampler, words, stops = Sampler(sampling), Detokenizer(self._lm.tokenizer.decode), StopStrings(sampling.stop)
        produced: list[int] = []
        ended = False
        while len(produced) < limit:
            token = sampler.pick(logits)
            ended = token.id in self._ends
            if ended:
                break
            produced.append(token.id)
            yield Piece(stops.push(words.push(token.id)), token)
            if stops.hit:
                break
            if len(produced) < limit:
                logits = self._forward([token.id], cache)
        rest = stops.push(words.finish()) + stops.finish()
        if rest:
            yield Piece(rest)
        return ("stop" if ended or stops.hit else "length"), produced

    def _forward(self, ids: Sequence[int], cache: DynamicCache) -> Tensor:
        """Read tokens after those in the cache, which grows by them; gives the (vocab,) logits of what follows."""
        with torch.inference_mode():
            read = torch.tensor([list(ids)])
            logits: Tensor = self._lm.model(input_ids=read, past_key_values=cache, logits_to_keep=1).logits
        return logits[0, -1]


def _end_tokens(lm: CausalLM) -> frozenset[int]:
    settings = lm.model.generation_config
    ends = settings.eos_token_id if settings is not None else lm.model.config.eos_token_id
    if isinstance(ends, int):
        return frozenset({ends})
    return frozenset(ends or ())
