"""Chat replies from a local model, step by step, with the key/value cache kept between the turns of a session.

Knows token ids, not messages: the caller renders the prompt with `ctxmem.tokens`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ctxmem.lm.causal import CausalLM
from ctxmem.lm.reply import Completion, FinishReason, Piece, PromptTooLong, Sampling
from ctxmem.lm.sampling import Sampler
from ctxmem.lm.sessions import Past, Sessions, Snapshot
from ctxmem.lm.stream import Detokenizer, StopStrings

KV_BYTES = 256 * 2**20
"""Memory for the caches of idle sessions: about 11,000 tokens of SmolLM2-135M in bf16."""

BLOCK = 256
"""Prompt tokens read in one step. Steps begin at multiples of it, and only whole blocks of prompts are kept.

Sums in bf16 depend on how many tokens are read together, enough to change a greedy reply. Read in the same blocks, a
prompt gives the same bits whether its prefix was kept or not; the last reply is read again, as a part of the prompt.
"""


class ChatModel:
    """Replies to prompts. For one thread."""

    def __init__(self, lm: CausalLM, *, kv_bytes: int = KV_BYTES) -> None:
        self._lm = lm
        self._sessions = Sessions(max_bytes=kv_bytes)
        self._ends = _end_tokens(lm)

    def reply(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        session: str | None = None,
        behind: Past | None = None,
    ) -> Generator[Piece, None, Completion]:
        """Answer a prompt, one step of work at a time. Closing the generator ends it between two steps.

        Args:
            prompt: token ids of the rendered request.
            sampling: how to draw.
            session: whose cached prefix to use and to extend; None uses and keeps none.
            behind: what to read the prompt after, such as a compressed memory. The cached prefix is the one behind it.

        Raises:
            PromptTooLong: the prompt fills the window.
            ModelError: the model's logits are no numbers.
        """
        past = behind or Past("", DynamicCache())
        length = past.cache.get_seq_length() + len(prompt)
        room = self._lm.window - length
        if not prompt or room <= 0:
            raise PromptTooLong(
                f"the prompt has {length} tokens; this model's context length is {self._lm.window} tokens and "
                "must hold at least one token of prompt and one of answer",
                param="messages",
            )
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        kept = self._sessions.read(session, prompt, behind=past.name, block=BLOCK) if session else None
        cached, past = (kept[1], Past(past.name, kept[0])) if kept else (0, past)
        logits = yield from self._prefill(prompt, cached, past, session)
        reason, produced = yield from self._decode(logits, past.cache, sampling, limit)
        return Completion(reason, len(prompt), produced, cached)

    def forget(self, session: str) -> None:
        """Drop what is cached for a session."""
        self._sessions.forget(session)

    def _prefill(
        self, prompt: Sequence[int], cached: int, past: Past, session: str | None
    ) -> Generator[Piece, None, Tensor]:
        """Read the rest of the prompt, keep its whole blocks; returns the (vocab,) logits of what follows it."""
        logits = torch.empty(0)
        for start in range(cached, len(prompt), BLOCK):
            if session and start > 0 and start + BLOCK >= len(prompt):
                self._sessions.keep(session, Snapshot.of(prompt[:start], past.cache, past.name))
            logits = self._forward(prompt[start : start + BLOCK], past.cache)
            yield Piece("")
        return logits

    def _decode(
        self, logits: Tensor, cache: DynamicCache, sampling: Sampling, limit: int
    ) -> Generator[Piece, None, tuple[FinishReason, int]]:
        """Draw tokens until an end; returns why it ended and how many tokens it has."""
        sampler, words, stops = Sampler(sampling), Detokenizer(self._lm.tokenizer.decode), StopStrings(sampling.stop)
        produced, ended = 0, False
        while produced < limit:
            token = sampler.pick(logits)
            ended = token.id in self._ends
            if ended:
                break
            produced += 1
            yield Piece(stops.push(words.push(token.id)), token)
            if stops.hit:
                break
            if produced < limit:
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
