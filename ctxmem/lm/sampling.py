"""Choosing the next token from logits. The names and meanings are those of OpenAI's chat completions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctxmem.errors import ModelError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn.

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


class Sampler:
    """Draws the tokens of one reply."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> Token:
        """Choose from (vocab,) logits.

        Raises:
            ModelError: a logit is no number.
        """
        logits = logits.float()
        if not bool(torch.isfinite(logits).all()):
            raise ModelError("the model's logits are not finite: its weights are broken")
        chosen = self._chosen(logits)
        wanted = self._sampling.top_logprobs
        if wanted is None:
            return Token(chosen)
        logprobs = torch.log_softmax(logits, dim=0)
        values, ids = logprobs.topk(wanted)
        return Token(chosen, float(logprobs[chosen]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))

    def _chosen(self, logits: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        scaled = logits / self._sampling.temperature
        probabilities = nucleus(torch.softmax(scaled - scaled.max(), dim=0), self._sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._random))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """(vocab,) probabilities with all but the likeliest that together reach `top_p` set to zero; one is always left.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (ICLR 2020), section 3.1.
    """
    if top_p >= 1:
        return probabilities
    ordered, places = probabilities.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    ordered[(before >= top_p) & (torch.arange(len(ordered)) > 0)] = 0
    return torch.zeros_like(probabilities).scatter(0, places, ordered)
