"""What pruning goes by: heads that foresee the final score, and change none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxmem import models
from ctxmem.lm.rerank.engine import Options, Outcome, rank
from ctxmem.lm.rerank.foresight import Foreseeing, foresee
from ctxmem.lm.rerank.rows import Row
from ctxmem.lm.rerank.shipped import SHIPPED, InteractionModel
from ctxmem.lm.text import Tokenizer

ASKED = {
    "who wrote Hamlet?": "Hamlet is a tragedy by William Shakespeare.",
    "what is bread made of?": "Bread is made of flour, water and salt.",
    "why is the sea blue?": "Water absorbs red light, so the sea looks blue.",
    "how far is the moon?": "The moon is 384,400 km away from the earth.",
    "when did the war end?": "The war ended in May 1945 with a surrender.",
    "what do bees make?": "Bees make honey from the nectar of flowers.",
}
TEXTS = list(ASKED.values())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights as a file of before: without foresights."""
    kept = {name: value for name, value in load_file(SHIPPED).items() if not name.startswith("foresights.")}
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    save_file(kept, path)
    return path


def traced(model: InteractionModel, query: str) -> Outcome:
    return rank(model, query, TEXTS, options=Options(trace=True))


def error(model: InteractionModel) -> list[float]:
    """By exit, the mean square of what is foreseen against the final score, differences between candidates alone."""
    runs = torch.tensor([traced(model, query).trace for query in ASKED])  # (queries, exits, candidates)
    within = runs - runs.mean(-1, keepdim=True)
    found: list[float] = (within[:, :-1] - within[:, -1:]).square().mean((0, 2)).tolist()
    return found


def test_the_shipped_foresights_foresee(plain: Path) -> None:
    """On questions it has not seen each exit is nearer to the end, and the end is where it was, to the bit."""
    shipped, before = InteractionModel(), InteractionModel(plain)
    assert all(now < then for now, then in zip(error(shipped), error(before), strict=True))
    for query in ASKED:
        assert traced(shipped, query).scores == traced(before, query).scores


def test_fitting_changes_foresights_alone(plain: Path) -> None:
    model = InteractionModel(plain)
    kept = {name: value.clone() for name, value in model.model.state_dict().items()}
    before = error(model)
    fit = Foreseeing(model.model)
    for query in ASKED:
        encoded = model.encode(query, TEXTS)
        fit.add(encoded.query, encoded.rows)
    assert error(model) == before  # until it is settled
    fit.settle()
    assert fit.queries == len(ASKED)
    assert all(now < 0.5 * then for now, then in zip(error(model), before, strict=True))
    changed = {name for name, value in model.model.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed == {f"foresights.{done}.weights" for done in range(model.layers)}


def test_rows_of_a_training_are_enough(plain: Path) -> None:
    """The same rows and seed give the same weights; candidates that are all alike teach nothing and break nothing."""
    tokenizer = Tokenizer.load(models.locate("minilm"))
    asked, *texts = (one.ids for one in tokenizer.encode([next(iter(ASKED)), *TEXTS]))
    rows = [Row("toy", asked, (texts[0],), tuple(texts[1:])), Row("same", asked, (texts[0],), (texts[0],) * 3)]
    one, other = (foresee(InteractionModel(plain).model, rows, seed=3) for _ in range(2))
    assert all(torch.equal(value, other[name]) and value.isfinite().all() for name, value in one.items())
    assert any(value.any() for value in one.values())
    nothing = foresee(InteractionModel(plain).model, rows[1:], seed=3)
    assert all(value.abs().max() < 1e-3 for value in nothing.values())
