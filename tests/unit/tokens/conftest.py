"""The packaged model's tokenizer, converted once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxmem.errors import ModelError
from ctxmem.tokens import gguf
from ctxmem.tokens.hf import HFCounter


@pytest.fixture(scope="session")
def smollm2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SmolLM2's tokenizer; skips aloud where the model is not installed."""
    try:
        return gguf.ensure("smollm2", cache_dir=tmp_path_factory.mktemp("cache"))
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2(smollm2_folder: Path) -> HFCounter:
    """SmolLM2's counter."""
    return HFCounter(smollm2_folder)
