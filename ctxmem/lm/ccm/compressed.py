"""A language model with a memory: compress what was said, go on from it. The library face of compressed context memory.

Raw `generate` of transformers is not shown on purpose: behind a memory it takes an attention mask of memory and prompt
together, and with one of the prompt alone it answers a cut-off prompt without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctxmem.errors import InvalidInput
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.files import load_adapter
from ctxmem.lm.ccm.memory import Memory, MemoryModel
from ctxmem.lm.ccm.rows import ChatML
from ctxmem.lm.ccm.update import CONCAT, Update
from ctxmem.lm.generate import ChatModel
from ctxmem.lm.reply import Sampling
from ctxmem.lm.sessions import Past

ADAPTER = Path(__file__).parent / "smollm2-135m-instruct"
"""The adapter that ships: for SmolLM2-135M-Instruct."""

STEP = 64
"""Tokens that are compressed in one step, at most; more text is several steps. What the adapter saw in training."""

GREEDY = Sampling(temperature=0.0)

Said = Sequence[tuple[str, str]]
"""Messages as (role, content)."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a memory is.

    Attributes:
        steps: how many steps it took in.
        slots: key/value positions it takes.
        bytes: of its states.
        update: the rule it grows by.
        maker: fingerprint of the model and adapter that made it.
    """

    steps: int
    slots: int
    bytes: int
    update: Update
    maker: str


class CompressedLM:
    """Chat with a local model whose past is a memory. For one thread.

    Attributes:
        lm: the base model.
        model: it with the adapter.
    """

    def __init__(self, lm: CausalLM, adapter: str | Path = ADAPTER) -> None:
        """Hook an adapter into a loaded model.

        Args:
            lm: the base.
            adapter: a folder that `ctxmem train ccm` wrote, or a hub id; the shipped one by default.

        Raises:
            ModelError: the adapter is missing, damaged or for another base, or the model does not speak ChatML.
        """
        hooked, sink = load_adapter(adapter, lm.model)
        self.lm = lm
        self.model = MemoryModel(lm.model, hooked, sink=sink)
        self._chatml = ChatML(lm.tokenizer)
        self._chat = ChatModel(lm)

    @classmethod
    def load(
        cls, name: str = "smollm2", *, adapter: str | Path = ADAPTER, cache_dir: Path | None = None, threads: int = 1
    ) -> CompressedLM:
        """Load a model and its adapter.

        Args:
            name: a packaged model, a folder, or a hub id.
            adapter: a folder that `ctxmem train ccm` wrote, or a hub id; the shipped one by default.
            cache_dir: where converted models are kept.
            threads: torch threads of this whole process.

        Raises:
            ModelError: see `CausalLM.load` and `CompressedLM`.
        """
        return cls(CausalLM.load(name, cache_dir=cache_dir, threads=threads), adapter)

    def empty(self, update: Update = CONCAT, *, tokens: int = 4) -> Memory:
        """A memory of nothing; see `MemoryModel.empty`."""
        return self.model.empty(update, tokens=tokens)

    def compress(self, memory: Memory, messages: Said) -> Memory:
        """The memory after these messages, as one step, or as several where they are more than `STEP` tokens.

        Raises:
            InvalidInput: there is no message, or another model made the memory.
        """
        steps = self.steps(messages)
        if not steps:
            raise InvalidInput("there is no message to compress", param="messages")
        for ids in steps:
            memory = self.model.compress(memory, ids)
        return memory

    def steps(self, messages: Said) -> list[list[int]]:
        """Token ids of messages in pieces of at most `STEP`, each of which is one step of a memory."""
        ids = self._ids(messages)
        return [ids[start : start + STEP] for start in range(0, len(ids), STEP)]

    def join(self, memories: Sequence[Memory]) -> Memory:
        """One memory of several that were made on their own; see `MemoryModel.join`."""
        return self.model.join(memories)

    def stream(self, memory: Memory, messages: Said, sampling: Sampling = GREEDY) -> Iterator[str]:
        """The answer to messages in sight of a memory, piece by piece; the memory stays as it is.

        Raises:
            InvalidInput: another model made the memory, or memory and messages fill the window.
        """
        opening = self.lm.tokenizer.encode(["assistant\n"])[0].ids
        prompt = [*self._ids(messages), self._chatml.start, *opening]
        for piece in self._chat.reply(prompt, sampling, behind=Past("memory", self.model.cache(memory))):
            if piece.text:
                yield piece.text

    def generate(self, memory: Memory, messages: Said, sampling: Sampling = GREEDY) -> str:
        """The whole answer; see `stream`."""
        return "".join(self.stream(memory, messages, sampling))

    def inspect(self, memory: Memory) -> Inspection:
        """What a memory is and takes."""
        return Inspection(memory.steps, memory.slots, memory.states.nbytes, memory.update, memory.maker)

    def _ids(self, messages: Said) -> list[int]:
        return [token for role, content in messages for token in self._chatml.message(role, content)]
