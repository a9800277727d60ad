"""When a candidate of a layer-by-layer reranker may stop: three policies, as pure functions of the scores so far.

Source: GRATING / PRISM (arXiv 2510.15620), section 4.1. `Prism` is the paper's policy. `Calibrated` replaces its
dispersion threshold and clusters by a forecast of the final score and a margin around it, both learned from full runs.
The margin carries a promise that assumes nothing about the scores' distribution (split conformal prediction; Vovk
et al. 2005): what is calibrated is not a score but the pruned run's whole result, so exits need no union bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ctxmem.errors import InvalidInput

Path = Sequence[float]
"""A candidate's scores, from the first exit to the one it has reached; higher is better."""
Run = Sequence[Sequence[float]]
"""A full run of one query: by exit, the scores of all its candidates, the last exit's being final."""

_STEPS = 60  # margins that are tried
_FINEST = 1 / 300  # the smallest of them, as a share of the largest
_RIDGE = 1e-3  # of the mean variance of what a forecast is made from


class Verdict(NamedTuple):
    """What one exit decides about the candidates that still run.

    Attributes:
        accept: places that are in the result for certain and may stop.
        drop: places that are out and stop.
    """

    accept: frozenset[int] = frozenset()
    drop: frozenset[int] = frozenset()


class Policy(Protocol):
    """Decides at each exit which candidates go on."""

    def prune(self, paths: Sequence[Path], slots: int) -> Verdict:
        """Judge the running candidates.

        Args:
            paths: of each, its scores so far.
            slots: places of the result that are still free.
        """
        ...


@dataclass(frozen=True, slots=True)
class Never:
    """Every candidate runs to the end: the plain forward pass."""

    def prune(self, paths: Sequence[Path], slots: int) -> Verdict:
        return Verdict()


@dataclass(frozen=True, slots=True)
class Prism:
    """The paper's policy: when scores spread, K-Means; above the boundary cluster is in, below is out.

    The paper gives neither the threshold nor the number of clusters; the defaults keep the full run's first five in
    about 96 % of places in our trial.

    Attributes:
        cv: act when |deviation / mean| of the sigmoid scores is above it.
        clusters: of K-Means in one dimension.
        exact: only drop, so that the order among the accepted is the full run's (section 7).
    """

    cv: float = 0.5
    clusters: int = 3
    exact: bool = False

    def prune(self, paths: Sequence[Path], slots: int) -> Verdict:
        values = [1 / (1 + math.exp(-max(-60.0, min(60.0, path[-1])))) for path in paths]
        mean = fmean(values) if values else 0.0
        if slots <= 0 or len(values) <= slots or abs(pstdev(values) / max(mean, 1e-12)) <= self.cv:
            return Verdict()
        labels = clusters_of(values, self.clusters)
        order = sorted(range(len(values)), key=lambda place: -values[place])
        boundary = labels[order[slots - 1]]
        above = frozenset(place for place, label in enumerate(labels) if label > boundary)
        below = frozenset(place for place, label in enumerate(labels) if label < boundary)
        return Verdict(frozenset() if self.exact else above, below)


def clusters_of(values: Sequence[float], count: int, *, rounds: int = 50) -> list[int]:
    """K-Means in one dimension (Lloyd, started at quantiles): the cluster of each value, 0 the lowest.

    >>> clusters_of([0.1, 0.9, 0.12, 0.5], 3)
    [0, 2, 0, 1]
    """
    ranked = sorted(values)
    centres = [ranked[(2 * at + 1) * len(ranked) // (2 * count)] for at in range(count)]
    labels: list[int] = []
    for _ in range(rounds):
        found = [min(range(count), key=lambda at, one=value: abs(one - centres[at])) for value in values]  # type: ignore[misc]
        if found == labels:
            break
        labels = found
        for at in range(count):
            own = [value for value, label in zip(values, labels, strict=True) if label == at]
            centres[at] = fmean(own) if own else centres[at]
    seat = {at: place for place, at in enumerate(sorted(range(count), key=centres.__getitem__))}
    return [seat[label] for label in labels]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Drops what is forecast further below the k-th best, and accepts what is further above the next, than the margin.

    For queries exchangeable with those it was calibrated on, with k results asked for, the set of the first k differs
    from the full run's with probability at most `alpha`. With another k nothing is promised; without a margin nothing
    is pruned.

    Attributes:
        weights: by number of exits passed, what each score so far weighs in the forecast of the final score, in units
            of that forecast's own error.
        margin: in those units.
        k: the result's size that the margin holds for.
        alpha: the promise.
        queries: how many it was calibrated on.
        model: fingerprint of the model that it belongs to.
        exact: only drop, so that the order is the full run's.
    """

    weights: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    margin: float = math.inf
    k: int = 0
    alpha: float = 0.1
    queries: int = 0
    model: str = ""
    exact: bool = False

    def prune(self, paths: Sequence[Path], slots: int) -> Verdict:
        weights = self.weights.get(len(paths[0])) if paths else None
        if weights is None or not 0 < slots < len(paths) or self.margin == math.inf:
            return Verdict()
        hoped = [forecast(weights, path) for path in paths]
        ranked = sorted(hoped, reverse=True)
        kth, after = ranked[slots - 1], ranked[slots]
        drop = frozenset(place for place, score in enumerate(hoped) if kth - score > self.margin)
        accept = frozenset(place for place, score in enumerate(hoped) if score - after > self.margin)
        return Verdict(frozenset() if self.exact else accept, drop)


def forecast(weights: Sequence[float], path: Path) -> float:
    """What a candidate's scores so far let expect of its final score; -inf for one that could not be scored.

    >>> forecast((-1.0, 2.0), [1.0, 3.0])
    5.0
    """
    found = sum(weight * score for weight, score in zip(weights, path, strict=True))
    return found if math.isfinite(found) else -math.inf


def calibrate(runs: Sequence[Run], *, k: int, alpha: float, model: str = "", exact: bool = False) -> Calibrated:
    """A policy from full runs: forecasts from every third query, the margin from the others.

    For each of the others the smallest margin is sought at which, and at all larger ones, its pruned run has the full
    run's first k; of these, the (1 - alpha) quantile with the finite-sample correction.

    Args:
        runs: in an order that says nothing about them; at least 1.5 / alpha - 1.5, with fewer nothing is pruned.
        k: size of the result.
        alpha: largest share of queries whose result may change, in (0, 1).
        model: fingerprint of the model.
        exact: only drop, see `Calibrated`.

    Raises:
        InvalidInput: alpha or k is out of range, or the runs are not of one depth.
    """
    if not 0 < alpha < 1 or k < 1:
        raise InvalidInput(f"alpha is a share in (0, 1) and k at least 1; got {alpha} and {k}")
    depths = {len(run) for run in runs}
    if len(depths) > 1:
        raise InvalidInput(f"the runs have different depths: {sorted(depths)}")
    learned, held = runs[::3], [run for place, run in enumerate(runs) if place % 3]
    weights = forecasts(learned)
    found = Calibrated(weights, math.inf, k, alpha, len(runs), model, exact)
    margins = _margins(weights, learned)
    needed = sorted(needed_margin(found, run, margins) for run in held)
    rank = math.ceil((len(needed) + 1) * (1 - alpha))
    return replace(found, margin=needed[rank - 1]) if rank <= len(needed) else found


def forecasts(runs: Sequence[Run]) -> dict[int, tuple[float, ...]]:
    """By exit, from 1 to the last but one, weights of the scores so far that come closest to the final score.

    Ridge regression on what each layer added to the score, within queries: only differences between candidates matter.
    Divided by its error (root mean square), so that one margin suits all exits.
    """
    scored = [_finite(run) for run in runs]
    rows = [table - table.mean(1, keepdims=True) for table in scored if table.shape[1] > 1]
    if not rows:
        return {}
    table = np.concatenate(rows, axis=1)  # (exits, candidates of all queries)
    added = np.diff(table, axis=0, prepend=0.0)
    return {exits: _weights(added[:exits], table[-1]) for exits in range(1, len(table))}


def _weights(added: NDArray[np.float64], final: NDArray[np.float64]) -> tuple[float, ...]:
    square = added @ added.T
    square += (_RIDGE * square.trace() / len(added) + 1e-12) * np.eye(len(added))
    solved = np.linalg.solve(square, added @ final)
    solved /= max(float(np.sqrt(np.mean((solved @ added - final) ** 2))), 1e-9)
    weights: list[float] = (solved - np.append(solved[1:], 0.0)).tolist()  # of the scores instead of what was added
    return tuple(weights)


def needed_margin(policy: Calibrated, run: Run, margins: Sequence[float]) -> float:
    """The smallest margin at which, and at all larger ones, the pruned run has the full run's first k.

    Args:
        policy: with its forecasts.
        run: of one query.
        margins: to try, falling; infinity stands before them.
    """
    last, needed = best_of(run[-1], policy.k), math.inf
    for margin in margins:
        if pruned_run(replace(policy, margin=margin), run, policy.k)[0] != last:
            break
        needed = margin
    return needed


def pruned_run(policy: Policy, run: Run, k: int) -> tuple[frozenset[int], list[int]]:
    """What a policy makes of a full run: the places of the first k, and how many exits each candidate reached."""
    running = [place for place in range(len(run[0])) if any(math.isfinite(scores[place]) for scores in run)]
    accepted: set[int] = set()
    reached = [0] * len(run[0])
    for at in range(1, len(run)):
        for place in running:
            reached[place] = at
        accept, drop = policy.prune([[scores[place] for scores in run[:at]] for place in running], k - len(accepted))
        accepted |= {running[seat] for seat in accept}
        running = [place for seat, place in enumerate(running) if seat not in accept | drop]
        if len(accepted) >= k or len(running) <= k - len(accepted):
            return frozenset(accepted | set(running if len(accepted) < k else ())), reached
    for place in running:
        reached[place] = len(run)
    best = best_of([run[-1][place] for place in running], k - len(accepted))
    return frozenset(accepted | {running[seat] for seat in best}), reached


def best_of(scores: Sequence[float], k: int) -> frozenset[int]:
    """The places of the k highest scores; equal ones by place."""
    return frozenset(sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: max(0, k)])


def _finite(run: Run) -> NDArray[np.float64]:
    """(exits, candidates) scores of the candidates that have one at every exit."""
    table = np.asarray(run, dtype=np.float64)
    kept: NDArray[np.float64] = table[:, np.isfinite(table).all(0)]
    return kept


def _margins(weights: Mapping[int, tuple[float, ...]], runs: Sequence[Run]) -> list[float]:
    """Margins to try, falling from one at which nothing is pruned in these runs."""
    spreads = [
        np.ptp(np.asarray(weights[at]) @ _finite(run)[:at]) for run in runs for at in weights if _finite(run).size
    ]
    widest = float(max(spreads, default=0.0))
    return [widest * _FINEST ** (step / (_STEPS - 1)) for step in range(_STEPS)] if widest > 0 else []
