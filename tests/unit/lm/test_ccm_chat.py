"""Chat behind a memory with the real model and an adapter that was never trained: the mechanics, not the quality."""

from __future__ import annotations

import pytest
import torch

from ctxmem.errors import InvalidInput
from ctxmem.lm.ccm.compressed import STEP, CompressedLM
from ctxmem.lm.ccm.update import Update
from ctxmem.lm.reply import Sampling

pytestmark = pytest.mark.model

SHORT = Sampling(max_tokens=8, temperature=0.0)
SAID = [("user", "My dog is called Rex."), ("assistant", "A good name!")]
ASKED = [("user", "What is my dog called?")]


def test_a_memory_is_read_and_stays_as_it_was(compressed: CompressedLM) -> None:
    """Two greedy answers behind it are one, and differ from the answer behind nothing."""
    memory = compressed.compress(compressed.empty(tokens=8), SAID)
    before = memory.states.clone()
    first = compressed.generate(memory, ASKED, SHORT)
    assert first == compressed.generate(memory, ASKED, SHORT)
    assert torch.equal(before, memory.states)
    seen = compressed.inspect(memory)
    assert (seen.steps, seen.slots, seen.bytes) == (1, 8, 8 * 23_040)


def test_a_conversation_without_end_keeps_its_cap(compressed: CompressedLM) -> None:
    """Forty steps under a hybrid rule: the slots stay at (bank + 1) * tokens, positions below slots and live text."""
    memory = compressed.empty(Update("hybrid", bank=2), tokens=2)
    for turn in range(40):
        memory = compressed.compress(memory, [("user", f"Fact number {turn}.")])
        assert memory.slots == 2 * min(turn + 1, 3)
    assert compressed.generate(memory, ASKED, SHORT)


def test_long_text_is_several_steps(compressed: CompressedLM) -> None:
    """Each of at most `STEP` tokens."""
    memory = compressed.compress(compressed.empty(tokens=1), [("user", "word " * (2 * STEP))])
    assert memory.steps == 3


def test_nothing_to_compress(compressed: CompressedLM) -> None:
    with pytest.raises(InvalidInput):
        compressed.compress(compressed.empty(), [])
