"""Sentence vectors by all-MiniLM-L6-v2, each sentence embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from bench.pruning.rows import by_sentences, ranked
from ctxmem import models
from ctxmem.ports import Counter

_BATCH = 32


@dataclass(slots=True)
class MiniLM:
    """The encoder, and the vectors it has worked out.

    Attributes:
        known: by text without whitespace around it, its vector of length 1.
        model: once loaded.
        tokenizer: once loaded.
    """

    known: dict[str, torch.Tensor] = field(default_factory=dict)
    model: Any = None
    tokenizer: Any = None

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
        """(texts, 384) float32, each row of length 1: the mean over the tokens, as the model was trained."""
        texts = [text.strip() for text in texts]
        missing = sorted({text for text in texts if text not in self.known}, key=len)
        for at in range(0, len(missing), _BATCH):
            some = missing[at : at + _BATCH]
            self.known.update(zip(some, self._vectors(some), strict=True))
        return torch.stack([self.known[text] for text in texts]).numpy()

    def sentences(self, text: str, query: str, allowed: int, *, counter: Counter) -> str:
        """The row: whole sentences, those most like the question first."""
        pieces = by_sentences(text)
        likeness = self.embed(pieces.pieces) @ self.embed([query])[0]
        return pieces.filled(ranked(likeness.tolist()), allowed, counter)

    def _vectors(self, texts: list[str]) -> torch.Tensor:
        if self.model is None:
            folder = models.locate("minilm")
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModel.from_pretrained(folder).eval()
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state  # (batch, seq, 384)
        mask = batch["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
