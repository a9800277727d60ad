"""A causal language model on the CPU that scores texts: the `Scorer` behind Selective Context.

Source of the settings: windows of 1,024 tokens with 256 of overlap rank tokens like a full pass (Spearman .997, same
upper half 99.0 %) at lower cost; bf16 agrees with fp32 (Spearman .9997) at half the memory, and at 1.5 times its speed
on processors that have it (on others see `ctxmem.lm.products`); one thread does twice the work per CPU-second of two
that share busy cores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ctxmem.errors import ModelError
from ctxmem.lm.loading import Progress, loading_alone, model_folder
from ctxmem.lm.products import widen
from ctxmem.lm.scoring import Row, batches, fresh_slices, read, rows
from ctxmem.lm.text import Encoding, Tokenizer
from ctxmem.ports import Scoring, TokenScores, in_time

WINDOW = 1024
OVERLAP = 256
BATCH_POSITIONS = 1024
Share = tuple[int, int]
"""Which part of how many: (0, 2) is the first half."""
WHOLE: Share = (0, 1)
_SMOOTHING = 0.3
_CALIBRATION = 96


class CausalLM:
    """A causal language model with its tokenizer. Implements `ctxmem.ports.Scorer`.

    Scores are a pure function of the text: equal names give equal scores, up to the rounding of bf16 sums.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        name: fingerprint of weights, number format and windows.
        window: most tokens the model was made to read.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, *, label: str = "lm") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.window: int = model.config.max_position_embeddings
        self.name = f"{label}-{fingerprint(model)}-{WINDOW}.{OVERLAP}"
        self._first = _start_token(model, tokenizer)
        self._span = min(WINDOW, self.window)
        self._rate: float = self._calibrated()

    @classmethod
    def load(
        cls, name: str = "smollm2", *, cache_dir: Path | None = None, threads: int = 1, progress: Progress | None = None
    ) -> CausalLM:
        """Load a model in bf16, converting or fetching it first when needed.

        Args:
            name: a packaged model, a folder, or a hub id.
            cache_dir: where converted models are kept.
            threads: torch threads of this whole process.
            progress: told about a conversion.

        Raises:
            ModelError: the model or its tokenizer is missing or broken.
        """
        torch.set_num_threads(threads)
        folder = model_folder(name, cache_dir=cache_dir, progress=progress)
        tokenizer = Tokenizer.load(folder)
        try:
            with loading_alone():
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"cannot load the model in {folder}: {error}") from error
        widen(model)
        return cls(model, tokenizer, label=Path(name).name)

    @property
    def rate(self) -> float:
        """Tokens read per second, measured."""
        return self._rate

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds that scoring the texts takes, from the measured speed."""
        return self._positions(self.tokenizer.encode(texts)) / self._rate

    def score(self, texts: Sequence[str], *, deadline: float | None = None, share: Share = WHOLE) -> list[TokenScores]:
        """Score each text on its own, every token in the context of all before it in its window.

        Args:
            texts: what to score.
            deadline: seconds from now.
            share: the part of the batches that is read; the others' tokens have score 0.

        Raises:
            Unavailable: the scores would not be there within `deadline` seconds.
            ModelError: the model gives no number for any token of a batch.
        """
        return in_time(self.scoring(texts, share=share), deadline)

    def scoring(self, texts: Sequence[str], *, share: Share = WHOLE) -> Scoring:
        """Score in steps: yields, before each batch, the seconds it is likely to take. Closing it stops the work."""
        encodings = self.tokenizer.encode(texts)
        ids = [encoding.ids for encoding in encodings]
        nats = [[0.0] * len(tokens) for tokens in ids]
        cut = rows([len(tokens) for tokens in ids], window=self._span, overlap=min(OVERLAP, self._span // 4))
        for batch in batches(cut, positions=BATCH_POSITIONS)[share[0] :: share[1]]:
            yield len(batch) * batch[0].length / self._rate
            scores = self._read(batch, ids)
            for row, place in fresh_slices(batch):
                nats[row.text][row.fresh : row.stop] = scores[place]
        return [_token_scores(encoding, found) for encoding, found in zip(encodings, nats, strict=True)]

    def _read(self, batch: Sequence[Row], ids: Sequence[Sequence[int]]) -> list[float]:
        nats, rate = self._timed(batch, ids)
        self._rate += _SMOOTHING * (rate - self._rate)
        scores: list[float] = finite(nats, vocab=self.model.config.vocab_size).tolist()
        return scores

    def _timed(self, batch: Sequence[Row], ids: Sequence[Sequence[int]]) -> tuple[Tensor, float]:
        """(fresh tokens,) nats of a batch, and the tokens read per second."""
        began = time.monotonic()
        with torch.inference_mode():
            head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
            nats = read(self.model.base_model, head, batch, ids, first=self._first)
        return nats, len(batch) * batch[0].length / max(time.monotonic() - began, 1e-6)

    def _positions(self, encodings: Sequence[Encoding]) -> int:
        lengths = [len(encoding.ids) for encoding in encodings]
        cut = rows(lengths, window=self._span, overlap=min(OVERLAP, self._span // 4))
        return sum(row.length for row in cut)

    def _calibrated(self) -> float:
        """Tokens per second of a small pass, after one that warms up."""
        size = min(_CALIBRATION, self._span)
        ids = [[token % self.model.config.vocab_size for token in range(size)]]
        passes = [self._timed([Row(0, 0, 0, size)], ids) for _ in range(2)]
        return passes[-1][1]


def finite(nats: Tensor, *, vocab: int) -> Tensor:
    """The scores with ln(vocab), the score under a uniform model, in place of any that is no number.

    Args:
        nats: (n,) scores.
        vocab: tokens the model knows.

    Raises:
        ModelError: none of them is a number, so the model is broken.
    """
    good = torch.isfinite(nats)
    if nats.numel() and not bool(good.any()):
        raise ModelError("the model's logits are not finite: its weights are broken")
    return torch.where(good, nats, math.log(vocab))


def fingerprint(model: nn.Module, *, number_format: bool = True) -> str:
    """A name of the weights and, unless told otherwise, their format: 16 hex characters over a sample of every one."""
    digest = blake2b(digest_size=8)
    for name, weights in model.named_parameters():
        flat = weights.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)]
        sample = sample.float() if number_format else sample.bfloat16().float()  # the same from any wider format
        digest.update(f"{name}{tuple(weights.shape)}{weights.dtype if number_format else ''}".encode())
        digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()


def _start_token(model: PreTrainedModel, tokenizer: Tokenizer) -> int:
    """The token that stands before every text: the mark between documents of pre-training, else the model's own start.

    A chat model's own start token opens a turn, after which plain text is unlikely: 2.35 instead of 2.02 nats per token
    over an encyclopaedia paragraph with SmolLM2.
    """
    mark = tokenizer.id("<|endoftext|>")
    if mark is not None:
        return mark
    start = model.config.bos_token_id
    return start if isinstance(start, int) else 0


def _token_scores(encoding: Encoding, nats: Sequence[float]) -> TokenScores:
    starts, ends = zip(*encoding.spans, strict=True) if encoding.spans else ((), ())
    return TokenScores(starts, ends, tuple(nats))
