"""When a candidate of a layer-by-layer reranker may stop: three policies, as pure functions of the scores so far.

Source: GRATING / PRISM (arXiv 2510.15620), section 4.1. `Prism` is the paper's policy. `Calibrated` replaces its
dispersion threshold and clusters by margins learned from full runs, which carry a promise that assumes nothing about
the scores' distribution (split conformal prediction; Vovk et al. 2005; union bound over the exits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import NamedTuple, Protocol

from ctxmem.errors import InvalidInput


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

    def prune(self, layer: int, scores: Sequence[float], slots: int) -> Verdict:
        """Judge the running candidates.

        Args:
            layer: layers done, from 1.
            scores: of each running candidate, higher is better.
            slots: places of the result that are still free.
        """
        ...


@dataclass(frozen=True, slots=True)
class Never:
    """Every candidate runs to the end: the plain forward pass."""

    def prune(self, layer: int, scores: Sequence[float], slots: int) -> Verdict:
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

    def prune(self, layer: int, scores: Sequence[float], slots: int) -> Verdict:
        values = [1 / (1 + math.exp(-max(-60.0, min(60.0, score)))) for score in scores]
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
    """Drops what is further below the k-th score, and accepts what is further above the next, than ever mattered.

    For queries exchangeable with those it was calibrated on, the set of the first k differs from the full run's with
    probability at most `alpha`. Without margins, or with another k, it prunes nothing.

    Attributes:
        margins: by layer, in units of the score.
        k: the result's size that the margins hold for.
        alpha: the promise.
        queries: how many the margins come from.
        model: fingerprint of the model that they belong to.
        exact: only drop, so that the order is the full run's.
    """

    margins: Mapping[int, float] = field(default_factory=dict)
    k: int = 0
    alpha: float = 0.1
    queries: int = 0
    model: str = ""
    exact: bool = False

    def prune(self, layer: int, scores: Sequence[float], slots: int) -> Verdict:
        margin = self.margins.get(layer, math.inf)
        if not 0 < slots < len(scores) or margin == math.inf:
            return Verdict()
        ranked = sorted(scores, reverse=True)
        kth, after = ranked[slots - 1], ranked[slots]
        drop = frozenset(place for place, score in enumerate(scores) if kth - score > margin)
        accept = frozenset(place for place, score in enumerate(scores) if score - after > margin)
        return Verdict(frozenset() if self.exact else accept, drop)


def calibrate(runs: Sequence[Sequence[Sequence[float]]], *, k: int, alpha: float, model: str = "") -> Calibrated:
    """Margins from full runs.

    For each query and layer the smallest margin that keeps the final first k; of these, the (1 - alpha / exits)
    quantile with the finite-sample correction.

    Args:
        runs: of each query, by layer from the first, the scores of all its candidates.
        k: size of the result.
        alpha: largest share of queries whose result may change, in (0, 1).
        model: fingerprint of the model.

    Raises:
        InvalidInput: alpha or k is out of range, or the runs are not of one depth.
    """
    if not 0 < alpha < 1 or k < 1:
        raise InvalidInput(f"alpha is a share in (0, 1) and k at least 1; got {alpha} and {k}")
    depths = {len(run) for run in runs}
    if len(depths) > 1:
        raise InvalidInput(f"the runs have different depths: {sorted(depths)}")
    exits = max(0, next(iter(depths), 0) - 1)
    margins: dict[int, float] = {}
    for at in range(exits):
        needed = sorted(needed_margin(run[at], run[-1], k) for run in runs)
        rank = math.ceil((len(needed) + 1) * (1 - alpha / exits))
        if rank <= len(needed):
            margins[at + 1] = needed[rank - 1]
    return Calibrated(margins, k, alpha, len(runs), model)


def needed_margin(scores: Sequence[float], final: Sequence[float], k: int) -> float:
    """The smallest margin at which no candidate of the final first k is dropped and no other is accepted.

    It is how far the best of the others stands above the worst of the first k, so it holds whichever candidates have
    left before: among those that still run, a member is dropped only when another stands a margin above it.

    >>> needed_margin([3.0, 1.0, 2.5], [3.0, 2.0, 1.0], 2)
    1.5
    """
    last = sorted(range(len(final)), key=lambda place: (-final[place], place))
    if len(last) <= k:
        return 0.0
    return max(0.0, max(scores[place] for place in last[k:]) - min(scores[place] for place in last[:k]))
