"""A GGUF's tokenizer, written as files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFWriter
from tokenizers import Tokenizer

from ctxmem import models
from ctxmem.errors import ModelError
from ctxmem.tokens import gguf

FILES = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A GGUF of a few tokens, packaged as `smollm2`."""
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", "a", "b", "ab", "Ġ", "1"])
    writer.add_token_types([3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    monkeypatch.setattr(models, "locate", lambda name: path)
    return path


def test_the_folder_says_what_the_gguf_says(small, tmp_path):
    """Vocabulary, merges, control tokens, template and window."""
    gguf.write(small, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_bytes())
    assert tokenizer.encode("ab<|end|> 11ba").tokens == ["ab", "<|end|>", "Ġ", "1", "1", "b", "a"]
    assert (config["eos_token"], config["model_max_length"], "bos_token" in config) == ("<|end|>", 512, False)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_smollm2_is_read_as_it_was_trained(smollm2_folder):
    """Digits stand alone, control tokens come first, and every text comes back."""
    tokenizer = Tokenizer.from_file(str(smollm2_folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 49152
    assert [tokenizer.id_to_token(i) for i in range(3)] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.encode("in 2024").tokens == ["in", "Ġ", "2", "0", "2", "4"]
    assert tokenizer.decode(tokenizer.encode("naïve 你好 \n\t 3.14").ids) == "naïve 你好 \n\t 3.14"


def test_a_complete_folder_is_left_alone(smollm2_folder):
    """Nothing is read or written again, and nobody is told of steps."""
    before = {path.name: path.stat().st_mtime_ns for path in smollm2_folder.iterdir()}
    steps: list[str] = []
    assert gguf.ensure("smollm2", cache_dir=smollm2_folder.parents[1], progress=steps.append) == smollm2_folder
    assert {path.name: path.stat().st_mtime_ns for path in smollm2_folder.iterdir()} == before
    assert steps == []


@pytest.mark.parametrize("damage", ["missing", "torn", "outdated"])
def test_an_incomplete_folder_is_written_again(small, tmp_path, damage):
    """What else lies in it stays."""
    folder = models.home("smollm2", tmp_path)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    config = {"missing": None, "torn": '{"ctxmem": ', "outdated": '{"ctxmem": {"format": 0}}'}[damage]
    if config is not None:
        (folder / "tokenizer_config.json").write_text(config)
        (folder / "tokenizer.json").write_text("{}")
    steps: list[str] = []
    assert gguf.ensure("smollm2-135m-instruct", cache_dir=tmp_path, progress=steps.append) == folder
    assert sorted(path.name for path in folder.iterdir()) == [FILES[0], "model.safetensors", *FILES[1:]]
    assert len(steps) == 3


def test_two_processes_may_write_at_once(small, tmp_path):
    """Both end with the same whole files, and no scraps are left."""
    code = "import sys; from pathlib import Path; from ctxmem.tokens import gguf; gguf.write(*map(Path, sys.argv[1:]))"
    out = tmp_path / "out"
    running = [subprocess.Popen([sys.executable, "-c", code, str(small), str(out)]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab_size() == 6


def test_no_torch_is_loaded(smollm2_folder):
    """Counting must not cost what running a model costs."""
    code = (
        "import sys; from pathlib import Path; from ctxmem.tokens.resolve import counter_for\n"
        "counter_for('smollm2', cache_dir=Path(sys.argv[1])).texts(['x'])\n"
        "sys.exit(bool({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    cache = str(smollm2_folder.parents[1])
    assert subprocess.run([sys.executable, "-c", code, cache], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a gguf at all, but long enough to be read as a header"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content):
    """By name, and nothing is written."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.gguf is not a GGUF"):
        gguf.write(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_pre_tokenizer_is_refused(small):
    """A wrong one would count wrong without a sign."""
    with pytest.raises(ModelError, match="'tekken' is not known"):
        gguf.build(replace(gguf.read(small), pre="tekken"))


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path):
    """A file stands in its place."""
    (tmp_path / "models").write_text("")
    with pytest.raises(ModelError, match="cannot write the tokenizer"):
        gguf.ensure("smollm2", cache_dir=tmp_path)
