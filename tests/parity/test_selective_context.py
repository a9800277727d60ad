"""The published rule beside the package `selective-context` 0.1.3 itself, on the same language model in fp32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.pruning.peers import PeerProcess, installed
from ctxmem.compressors.paper import Published
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.loading import model_folder
from ctxmem.lm.text import Tokenizer

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif("selective-context" not in installed(), reason="the package is installed by bench/peers.sh"),
]

TEXT = (
    "The harbour of Stornoway was rebuilt between 1863 and 1871 at a cost of 40,000 pounds. Did the merchants pay for "
    "it? Most of it came from Sir James Matheson, who had bought the island with the profits of the opium trade. "
    "He is remembered for a castle, a fish market and a road that leads nowhere. The road was meant to reach the west "
    "coast, but it was never finished."
)


@pytest.fixture(scope="module")
def package() -> Iterator[PeerProcess]:
    """The package at work over SmolLM2."""
    process = PeerProcess("selective-context", model_folder("smollm2"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    """The same model in the package's precision."""
    folder = model_folder("smollm2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return CausalLM(model, Tokenizer.load(folder), label="fp32")


@pytest.mark.parametrize("level", ["phrase", "token"])
@pytest.mark.parametrize("ratio", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_selects_what_the_package_selects(package: PeerProcess, lm: CausalLM, ratio: float, level: str) -> None:
    """The same text and the same units left out, at the paper's ratios; spaCy's phrases come from the package."""
    ours = Published(lm, lambda sentence: package.ask("phrases", sentence=sentence)["text"])
    text, gone = package.ask("published", text=TEXT, ratio=ratio, level=level)["text"]
    assert ours(TEXT, ratio, level) == (text, gone)  # type: ignore[arg-type]  # one of the levels
