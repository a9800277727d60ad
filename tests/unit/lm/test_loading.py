"""From a model's name to its folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, LlamaConfig

from ctxmem.errors import ModelError
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.loading import WEIGHTS, convert_once, model_folder
from tests.unit.lm.conftest import random_model


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "a/b/c", "./x/y", ""])
def test_an_unknown_model_says_what_can_be_given(name: str) -> None:
    """Neither a packaged name, nor a folder, nor a hub id."""
    with pytest.raises(ModelError, match="smollm2"):
        model_folder(name)


@pytest.mark.parametrize("name", ["someone/something", "hf:someone/something"])
def test_a_hub_model_that_is_not_here_is_no_guess(refused: list[str], name: str) -> None:
    """Without the network a hub id that was never fetched is a clear error."""
    with pytest.raises(ModelError, match="cannot fetch 'someone/something'"):
        model_folder(name)
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


class TestConversion:
    def test_converted_weights_are_the_ggufs_in_bf16(self, tmp_path: Path) -> None:
        """Nothing is lost but the precision, and only whole files are left."""
        source, home = written(tmp_path), tmp_path / "home"
        told: list[str] = []
        convert_once(source, home, lambda stage, share: told.append(f"{stage} {share}"))
        found = AutoModelForCausalLM.from_pretrained(home)
        for name, weight in random_model().state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], weight.bfloat16(), msg=name)
        assert sorted(path.name for path in home.iterdir()) == [
            ".lock", "config.json", "generation_config.json", WEIGHTS
        ]  # fmt: skip
        assert told[-1] == "converted 1.0"

    def test_two_processes_convert_once(self, tmp_path: Path) -> None:
        """The second waits for the first and finds the work done."""
        source, home = written(tmp_path), tmp_path / "home"
        program = (
            "import sys; from pathlib import Path; from ctxmem.lm.loading import convert_once\n"
            "convert_once(Path(sys.argv[1]), Path(sys.argv[2]), lambda stage, share: print(stage))"
        )
        argv = [sys.executable, "-c", program, str(source), str(home)]
        processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        told = sorted(process.communicate(timeout=100)[0] for process in processes)
        assert [process.returncode for process in processes] == [0, 0]
        assert told[0] == ""
        assert told[1].endswith("converted\n")

    def test_what_a_killed_conversion_left_is_cleared_away(self, tmp_path: Path) -> None:
        """A half-written folder takes no room for ever."""
        source, home = written(tmp_path), tmp_path / "home"
        (home / ".converting-dead").mkdir(parents=True)
        (home / ".converting-dead" / WEIGHTS).write_bytes(b"half")
        convert_once(source, home)
        assert not (home / ".converting-dead").exists()
        assert (home / WEIGHTS).stat().st_size > 1000

    def test_a_folder_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        """A file where the folder should be is as good as a full disk."""
        (tmp_path / "home").write_text("in the way")
        with pytest.raises(ModelError, match="cannot convert"):
            convert_once(written(tmp_path), tmp_path / "home")


def written(folder: Path) -> Path:
    """The random model as a GGUF file."""
    model, path = random_model(), folder / "random.gguf"
    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{id}" for id in range(config.vocab_size)])
    for name, weight in model.state_dict().items():
        writer.add_tensor(_gguf_name(name), _rotated(name, weight, config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    """A weight's name in a GGUF, as the format's authors have it."""
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
    }  # fmt: skip
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def _rotated(name: str, weight: torch.Tensor, config: LlamaConfig) -> torch.Tensor:
    """Queries and keys in the order of a GGUF, which pairs neighbouring rows where transformers pairs halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((count for part, count in heads.items() if part in name), None)
    if count is None:
        return weight
    rows, width = weight.shape
    return weight.view(count, 2, rows // count // 2, width).swapaxes(1, 2).reshape(rows, width).contiguous()
