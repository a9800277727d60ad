"""Choosing the next token from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxmem.errors import ModelError
from ctxmem.lm.reply import Sampling, Token


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
