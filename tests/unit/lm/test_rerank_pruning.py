"""The engine prunes as policies are calibrated: on whole runs, from the exit before the first layer on."""

from __future__ import annotations

import pytest

from ctxmem.lm.rerank.engine import Options, rank
from ctxmem.lm.rerank.shipped import InteractionModel
from ctxmem.retrieval.pruning import Calibrated, pruned_run

QUERY = "who wrote Hamlet?"
TEXTS = [
    "Hamlet is a tragedy by William Shakespeare.",
    "Bread is made of flour and water.",
    "The sea is wide and blue. " * 30,
    "A play about the prince of Denmark.",
    "Who wrote it down?",
]


@pytest.fixture(scope="module")
def model() -> InteractionModel:
    return InteractionModel()


@pytest.mark.parametrize("options", [Options(), Options(chunk_tokens=40), Options(chunk_tokens=40, spill_bytes=0)])
def test_the_engine_does_what_the_promise_is_about(model: InteractionModel, options: Options) -> None:
    """The pruned run that margins are calibrated on is the one that the engine makes, candidate by candidate."""
    trace = rank(model, QUERY, TEXTS, options=Options(trace=True)).trace
    assert len(trace) == model.layers + 1
    early = {exits: (*[0.0] * (exits - 1), 1.0) for exits in range(1, model.layers + 1)}
    costs = []
    for margin in (64.0, 16.0, 14.0, 12.0, 10.0, 0.5, 0.0):
        policy = Calibrated(early, margin, k=2)
        found = rank(model, QUERY, TEXTS, k=2, policy=policy, options=options)
        kept, reached = pruned_run(policy, trace, 2)
        assert set(found.order[:2]) == kept
        assert list(found.layers) == [max(0, exits - 1) for exits in reached]
        costs.append(found.cost)
    assert costs[-1] < costs[1] < costs[0]
