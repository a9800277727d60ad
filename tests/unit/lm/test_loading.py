"""From a model's name to its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxmem.errors import ModelError
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.loading import WEIGHTS, convert_once, model_folder
from tests.unit.lm.conftest import random_model


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "a/b/c", "./x/y", ""])
def test_an_unknown_model_says_what_can_be_given(name: str) -> None:
    """Neither a packaged name, nor a folder, nor a hub id."""
    with pytest.raises(ModelError, match="smollm2"):
        model_folder(name)


def test_a_hub_model_that_is_not_here_is_no_guess(refused: list[str]) -> None:
    """Without the network a hub id that was never fetched is a clear error."""
    with pytest.raises(ModelError, match="cannot fetch 'someone/something'"):
        model_folder("someone/something")
    refused.clear()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """A folder is taken as it is, but it must hold a model."""
    with pytest.raises(ModelError, match=r"no config\.json"):
        model_folder(str(tmp_path))


def test_a_model_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    """Nothing is copied or converted."""
    random_model().save_pretrained(tmp_path)
    assert model_folder(str(tmp_path)) == tmp_path


def test_a_model_without_a_tokenizer_says_who_writes_it(tmp_path: Path) -> None:
    """The tokenizer's files are another package's work."""
    random_model().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        CausalLM.load(str(tmp_path))


def test_broken_weights_are_a_model_error(tmp_path: Path) -> None:
    """A torn download is told apart from our own mistakes."""
    random_model().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"torn")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}')
    with pytest.raises(ModelError, match="cannot load"):
        CausalLM.load(str(tmp_path))


def test_a_broken_gguf_leaves_no_weights(tmp_path: Path) -> None:
    """A conversion that fails leaves a folder that the next one starts over with."""
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"broken\.gguf"):
        convert_once(gguf, tmp_path / "home")
    assert not (tmp_path / "home" / WEIGHTS).exists()


def test_converted_weights_are_not_converted_again(tmp_path: Path) -> None:
    """The weights' presence is the mark of a complete conversion; the GGUF may be gone by then."""
    (tmp_path / WEIGHTS).write_bytes(b"done")
    convert_once(tmp_path / "gone.gguf", tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == b"done"
