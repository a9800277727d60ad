from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ctxmem.errors import ModelError
from ctxmem.lm.encoder import embedder_named
from ctxmem.models import locate

TEXTS = ["A cat sat on the mat.", "", "Die Katze 🐈 saß da.", "quarterly revenue " * 400, "lone \ud800 surrogate"]


def test_vectors_equal_those_of_sentence_transformers() -> None:
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(locate("minilm")), device="cpu")
    texts = [text for text in TEXTS if "\ud800" not in text]
    ours = embedder_named("minilm").embed(texts)
    theirs = reference.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert np.abs(ours - theirs).max() < 1e-5


def test_vectors_are_unit_float32_and_do_not_depend_on_their_batch() -> None:
    embedder = embedder_named("minilm")
    together = embedder.embed(TEXTS)
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), embedder.dimensions)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5


def test_no_texts_give_no_vectors() -> None:
    assert embedder_named("minilm").embed([]).shape == (0, 384)


def test_a_question_is_nearest_to_its_answer() -> None:
    embedder = embedder_named("minilm")
    passages = embedder.embed(["The Eiffel Tower is in Paris.", "Yeast makes bread rise.", "Whales are mammals."])
    assert int((passages @ embedder.embed(["Why does dough grow?"], query=True)[0]).argmax()) == 1


def test_a_static_embedder_is_the_mean_of_its_tokens_rows(tmp_path: Path) -> None:
    folder = _static(tmp_path, torch.eye(30522, 8, dtype=torch.int8))
    embedder = embedder_named(str(folder))
    vectors = embedder.embed(["[PAD]", ""])
    assert embedder.dimensions == 8
    assert vectors[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert not vectors[1].any()


def test_other_weights_have_another_name(tmp_path: Path) -> None:
    one, two = (_static(tmp_path / name, torch.full((30522, 4), value)) for name, value in (("a", 1.0), ("b", 2.0)))
    assert embedder_named(str(one)).name != embedder_named(str(two)).name


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = _static(tmp_path, torch.ones(30522, 4))
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        embedder_named(str(folder))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = _static(tmp_path, torch.full((30522, 4), float("nan")))
    with pytest.raises(ModelError, match="not finite"):
        embedder_named(str(folder)).embed(["word"])


def test_a_model_with_unknown_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ModelError, match="Dense"):
        embedder_named(str(tmp_path))


def test_a_name_nobody_knows_says_what_there_is() -> None:
    with pytest.raises(ModelError, match="minilm"):
        embedder_named("no-such-model")


def _static(folder: Path, table: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec"}))
    (folder / "tokenizer.json").write_bytes((locate("minilm") / "tokenizer.json").read_bytes())
    save_file({"embeddings": table}, folder / "model.safetensors")
    return folder
