"""A language model made up on the spot: two layers, random weights, a byte-level tokenizer. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.compressed import CompressedLM
from ctxmem.lm.ccm.files import save_adapter
from ctxmem.lm.ccm.rows import ChatML
from ctxmem.lm.text import Tokenizer as TextTokenizer
from ctxmem.tokens.resolve import counter_for

END = "<|im_end|>"


def byte_tokens(start: str = "<|endoftext|>") -> Tokenizer:
    """One token per byte, and the control tokens `start` and `<|im_end|>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Tokenizer(models.BPE(vocab={char: id for id, char in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(start, special=True), AddedToken(END, special=True)])
    return fast


def byte_tokenizer(start: str = "<|endoftext|>") -> TextTokenizer:
    """`byte_tokens` for a model that is loaded."""
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=byte_tokens(start)))


def random_model(*, seed: int = 0, window: int = 4096) -> LlamaForCausalLM:
    """Two layers of random weights over the byte tokenizer's vocabulary, in fp32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )
    return LlamaForCausalLM(config).eval()


Make = Callable[..., CausalLM]


@pytest.fixture
def make() -> Make:
    """Makes a model: `make(seed=1, window=64)`."""
    return lambda **knobs: CausalLM(random_model(**knobs), byte_tokenizer(), label="random")


@pytest.fixture(scope="session")
def lm() -> CausalLM:
    """A model that no test changes."""
    return CausalLM(random_model(), byte_tokenizer(), label="random")


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> CompressedLM:
    """The real model with an adapter that was never trained; no test changes it."""
    folder = tmp_path_factory.mktemp("adapter")
    counter_for("smollm2")  # writes the tokenizer
    lm = CausalLM.load("smollm2")
    torch.manual_seed(0)
    fresh = Adapter(lm.model)
    save_adapter(fresh, lm.model, folder, sink=ChatML(lm.tokenizer).start, note={})
    fresh.remove()
    return CompressedLM(lm, folder)
