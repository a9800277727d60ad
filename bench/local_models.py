"""Models in this process for benches: SmolLM2, which writes and is listened to, and an embedder that keeps vectors."""

from __future__ import annotations

import dbm
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctxmem.lm.causal import CausalLM
from ctxmem.lm.generate import ChatModel
from ctxmem.lm.reply import Sampling
from ctxmem.ports import Embedder
from ctxmem.tokens.hf import HFCounter
from ctxmem.tokens.resolve import counter_for
from ctxmem.types import Message


class Writer:
    """Writes greedily, so that equal prompts give equal texts. Implements `ctxmem.ports.Complete`.

    Attributes:
        calls: how often it was asked.
        tokens: written.
        seconds: spent reading and writing.
    """

    def __init__(self, name: str = "smollm2") -> None:
        counter = counter_for(name)
        if not isinstance(counter, HFCounter):
            raise SystemExit(f"{name} has no tokenizer here")
        self._counter = counter
        self._chat = ChatModel(CausalLM.load(name))
        self.calls, self.tokens, self.seconds = 0, 0, 0.0

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        """Yield the answer's text in pieces."""
        began = time.perf_counter()
        prompt = self._counter.encode_request(messages)
        for piece in self._chat.reply(prompt, Sampling(max_tokens=max_tokens, temperature=0.0)):
            self.tokens += piece.token is not None
            if piece.text:
                yield piece.text
        self.calls += 1
        self.seconds += time.perf_counter() - began


class Kept:
    """An embedder that keeps the vectors of documents in a folder; those of queries are made each time."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.dimensions, self._embedder = embedder.name, embedder.dimensions, embedder
        self._path = str(folder / "vectors")

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """(texts, dimensions) vectors."""
        if query:
            return self._embedder.embed(texts, query=True)
        keys = [sha256(f"{self.name}\0{text}".encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        with dbm.open(self._path, "c") as kept:
            new = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
            for key, row in zip(new, self._embedder.embed(list(new.values())), strict=True) if new else ():
                kept[key] = row.tobytes()
            return np.stack([np.frombuffer(kept[key], dtype=np.float32) for key in keys])
