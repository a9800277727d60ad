"""Pruning policies: what they keep, and the promise of the calibrated one on queries it has not seen."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.pruning import Calibrated, Never, Prism, calibrate, clusters_of, needed_margin

scores = st.lists(st.floats(-20, 20), min_size=1, max_size=20)


def runs(count: int, seed: int, *, layers: int = 6, candidates: int = 20) -> list[list[list[float]]]:
    """Full runs whose early scores are the last one's with noise that shrinks with depth."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        final = [rng.gauss(0, 3) for _ in range(candidates)]
        noisy = [[one + rng.gauss(0, 0.3 * (layers - at)) for one in final] for at in range(1, layers)]
        made.append([*noisy, final])
    return made


def best(values: list[float], k: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda place: (-values[place], place))[:k])


def pruned(policy: Calibrated | Prism, run: list[list[float]], k: int) -> tuple[set[int], int]:
    """The result of a run under a policy, and the layer x candidate work it took."""
    accepted: set[int] = set()
    running = list(range(len(run[0])))
    work = 0
    for layer, values in enumerate(run, 1):
        work += len(running)
        if layer == len(run):
            return accepted | {running[at] for at in best([values[one] for one in running], k - len(accepted))}, work
        accept, drop = policy.prune(layer, [values[one] for one in running], k - len(accepted))
        accepted |= {running[at] for at in accept}
        running = [one for at, one in enumerate(running) if at not in accept | drop]
        if len(running) <= k - len(accepted):
            return accepted | set(running), work
    return accepted, work


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_the_promise_holds_on_unseen_queries(alpha: float) -> None:
    """The share of changed results is at most alpha, two standard errors allowed; and work is saved."""
    policy = calibrate(runs(400, 1), k=5, alpha=alpha)
    unseen = runs(400, 2)
    changed = saved = 0
    for run in unseen:
        found, work = pruned(policy, run, 5)
        changed += found != best(run[-1], 5)
        saved += work < 6 * 20
    assert changed / 400 <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / 400)
    assert saved > 200


def test_too_few_queries_prune_nothing() -> None:
    """An exit needs (exits / alpha) - 1 queries; without them it is none."""
    policy = calibrate(runs(20, 3), k=5, alpha=0.1)
    assert policy.margins == {}
    assert policy.prune(1, [3.0, 2.0, 1.0], 1) == (frozenset(), frozenset())


@given(scores, scores, st.integers(1, 8))
def test_at_its_own_margin_no_query_changes(early: list[float], final: list[float], k: int) -> None:
    """The margin that a query needs keeps its result, whichever way the scores lie."""
    size = min(len(early), len(final))
    early, final = early[:size], final[:size]
    policy = Calibrated({1: needed_margin(early, final, k)}, k=k)
    assert pruned(policy, [early, final], min(k, size))[0] == best(final, min(k, size))


@given(scores, st.integers(1, 8))
def test_prism_never_drops_what_it_needs(values: list[float], slots: int) -> None:
    """At least as many candidates stay or are accepted as there are places."""
    accept, drop = Prism(cv=0.0).prune(1, values, slots)
    assert not accept & drop
    assert len(accept) <= slots
    assert len(values) - len(drop) >= min(slots, len(values))


def test_prism_follows_the_paper() -> None:
    """Clear winners leave above the boundary cluster, clear losers below it; flat scores change nothing."""
    values = [6.0, 5.9, 0.1, 0.0, -6.0, -6.1]
    assert Prism(cv=0.1).prune(1, values, 3) == ({0, 1}, {4, 5})
    assert Prism(cv=0.1, exact=True).prune(1, values, 3) == (frozenset(), {4, 5})
    assert Prism(cv=0.1).prune(1, [1.0, 1.0, 1.0, 1.0], 2) == (frozenset(), frozenset())
    assert Prism(cv=9.0).prune(1, values, 3) == (frozenset(), frozenset())
    assert clusters_of([0.1, 0.9, 0.12, 0.5], 3) == [0, 2, 0, 1]


def test_never_prunes_never() -> None:
    assert Never().prune(1, [1.0, -1.0], 1) == (frozenset(), frozenset())


@pytest.mark.parametrize(("alpha", "k"), [(0.0, 5), (1.0, 5), (0.1, 0)])
def test_a_promise_needs_sense(alpha: float, k: int) -> None:
    with pytest.raises(InvalidInput):
        calibrate(runs(30, 1), k=k, alpha=alpha)
