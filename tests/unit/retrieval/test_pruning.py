"""Pruning policies: what they keep, and the promise of the calibrated one on queries it has not seen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.pruning import (
    Calibrated,
    Never,
    Prism,
    best_of,
    calibrate,
    clusters_of,
    forecasts,
    needed_margin,
    pruned_run,
)

scores = st.lists(st.floats(-20, 20), min_size=1, max_size=20)
Made = Callable[[int, int], list[list[list[float]]]]
CANDIDATES = 12
LAST = {1: (1.0,)}
"""A forecast by the score itself."""


def noisy_runs(count: int, seed: int, *, layers: int = 6, candidates: int = CANDIDATES) -> list[list[list[float]]]:
    """Full runs whose early scores are the last one's with noise that shrinks with depth."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        final = [rng.gauss(0, 3) for _ in range(candidates)]
        noisy = [[one + rng.gauss(0, 0.3 * (layers - at)) for one in final] for at in range(1, layers)]
        made.append([*noisy, final])
    return made


def runs(count: int, seed: int, *, candidates: int = CANDIDATES) -> list[list[list[float]]]:
    """Full runs of a model whose last layer adds the most; what others add tells of it, once the wrong way round."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        worth, scores, run = [rng.gauss(0, 1) for _ in range(candidates)], [0.0] * candidates, []
        for share in (0.1, -0.3, 0.2, 0.5, 0.4, 3.0):
            scores = [score + share * one + rng.gauss(0, 0.15) for score, one in zip(scores, worth, strict=True)]
            run.append(scores)
        made.append(run)
    return made


@pytest.mark.parametrize("alpha", [0.1, 0.3])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("made", [noisy_runs, runs])
def test_the_promise_holds_on_unseen_queries(made: Made, alpha: float, *, exact: bool) -> None:
    """The share of changed results is at most alpha, two standard errors allowed; and work is saved."""
    policy = calibrate(made(400, 1), k=5, alpha=alpha, exact=exact)
    found = [(pruned_run(policy, run, 5), run) for run in made(400, 2)]
    changed = sum(kept != best_of(run[-1], 5) for (kept, _), run in found)
    assert changed / 400 <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / 400)
    assert sum(sum(reached) < 6 * CANDIDATES for (_, reached), _ in found) > 200


def test_over_many_calibrations_the_promise_holds_on_average() -> None:
    """With few queries each margin is uncertain; over calibrations and queries the share is at most alpha still."""
    changed = []
    for seed in range(40):
        drawn = runs(70, 100 + seed)
        policy = calibrate(drawn[:40], k=5, alpha=0.2)
        changed += [pruned_run(policy, run, 5)[0] != best_of(run[-1], 5) for run in drawn[40:]]
    assert 0.05 < sum(changed) / len(changed) <= 0.2 + 2 * math.sqrt(0.2 * 0.8 / 40)


def test_what_was_learned_from_is_not_what_is_calibrated_on() -> None:
    """Forecasts come from every third query alone, the margin from the others, so that no query vouches for itself."""
    drawn, others = runs(60, 1), noisy_runs(60, 2)
    learned = [others[at] if at % 3 else run for at, run in enumerate(drawn)]
    held = [run if at % 3 else others[at] for at, run in enumerate(drawn)]
    policy = calibrate(drawn, k=5, alpha=0.2)
    assert calibrate(learned, k=5, alpha=0.2).weights == policy.weights
    assert calibrate(held, k=5, alpha=0.2).weights != policy.weights


def test_a_forecast_sees_through_what_a_layer_takes_away() -> None:
    """A layer that counts against the good ones still tells them apart, in units of what it gets wrong."""
    ((weight,),) = forecasts([[[-0.5, 0.0, 0.5], [3.0, 0.6, -3.6]], [[-0.5, 0.0, 0.5], [3.0, -0.6, -2.4]]]).values()
    assert weight == pytest.approx(-6.0 / math.sqrt(0.24), rel=0.01)


def test_too_few_queries_prune_nothing() -> None:
    """A margin needs 1.5 / alpha - 1.5 queries; without them there is none."""
    policy = calibrate(runs(13, 3), k=5, alpha=0.1)
    assert policy.margin == math.inf
    assert policy.prune([[3.0], [2.0], [1.0]], 1) == (frozenset(), frozenset())
    assert calibrate(runs(14, 3), k=5, alpha=0.1).margin < math.inf


def test_texts_that_have_no_score_change_nothing() -> None:
    """Empty texts score -inf at every exit: they are no candidates."""
    drawn = runs(40, 1)
    empty = [[[*scores, -math.inf] for scores in run] for run in drawn]
    assert calibrate(empty, k=5, alpha=0.2) == calibrate(drawn, k=5, alpha=0.2)


@given(scores, scores, st.integers(1, 8))
def test_at_its_own_margin_no_query_changes(early: list[float], final: list[float], k: int) -> None:
    """The margin that a query needs keeps its result, and so do all larger ones, whichever way the scores lie."""
    size = min(len(early), len(final))
    run, tried = [early[:size], final[:size]], [50.0, 10.0, 3.0, 1.0, 0.3]
    needed = needed_margin(Calibrated(LAST, k=k), run, tried)
    for margin in tried:
        if margin >= needed:
            assert pruned_run(Calibrated(LAST, margin, k), run, k)[0] == best_of(run[-1], k)


@given(scores, st.integers(1, 8))
def test_prism_never_drops_what_it_needs(values: list[float], slots: int) -> None:
    """At least as many candidates stay or are accepted as there are places."""
    accept, drop = Prism(cv=0.0).prune([[value] for value in values], slots)
    assert not accept & drop
    assert len(accept) <= slots
    assert len(values) - len(drop) >= min(slots, len(values))


def test_prism_follows_the_paper() -> None:
    """Clear winners leave above the boundary cluster, clear losers below it; flat scores change nothing."""
    values = [[0.0, score] for score in (6.0, 5.9, 0.1, 0.0, -6.0, -6.1)]
    assert Prism(cv=0.1).prune(values, 3) == ({0, 1}, {4, 5})
    assert Prism(cv=0.1, exact=True).prune(values, 3) == (frozenset(), {4, 5})
    assert Prism(cv=0.1).prune([[1.0]] * 4, 2) == (frozenset(), frozenset())
    assert Prism(cv=9.0).prune(values, 3) == (frozenset(), frozenset())
    assert clusters_of([0.1, 0.9, 0.12, 0.5], 3) == [0, 2, 0, 1]


def test_never_prunes_never() -> None:
    assert Never().prune([[1.0], [-1.0]], 1) == (frozenset(), frozenset())


@pytest.mark.parametrize(("alpha", "k"), [(0.0, 5), (1.0, 5), (0.1, 0)])
def test_a_promise_needs_sense(alpha: float, k: int) -> None:
    with pytest.raises(InvalidInput):
        calibrate(runs(30, 1), k=k, alpha=alpha)
