"""Joining what several searches found: weighted sums of standardised scores, and maximal marginal relevance.

Sources: Bruch et al., "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023): a convex combination of
normalised scores beats reciprocal ranks, which throw away how far apart two candidates are, and needs one weight.
Carbonell and Goldstein, "The Use of MMR" (SIGIR 1998), equation 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean, pstdev

from ctxmem.errors import InvalidInput
from ctxmem.ports import Match

DENSE = 0.5
"""Weight of the vectors against the words in a fused score; `bench/retrieval.py` chose it on training queries."""

RERANKED = 0.5
"""Weight of the reranker against the first stage among passages of documents; see `bench/RESULTS.md`."""

IN_CHATS = 0.3
"""The same among turns of chats, and among memories: the largest at which LoCoMo's first two chats did not fall."""

_FLAT = 1e-9
"""A spread of scores below this says nothing."""


def standardised(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores with mean 0 and deviation 1 over the candidates; all 0 when they are equal."""
    if not scores:
        return {}
    mean, spread = fmean(scores.values()), pstdev(scores.values())
    return {id: (score - mean) / spread if spread > _FLAT else 0.0 for id, score in scores.items()}


def weighted(sides: Sequence[Mapping[str, float]], weights: Sequence[float], k: int) -> list[Match]:
    """The `k` best by the weighted sum of their standardised scores, best first; equal sums by id.

    Every side should score every candidate: one that a side does not know gets that side's lowest score.

    Args:
        sides: by candidate, the score each search gives it.
        weights: of each side; only their ratio matters.
        k: most candidates wanted.

    Raises:
        InvalidInput: not one weight per side, or one is negative.
    """
    if len(weights) != len(sides) or any(weight < 0 for weight in weights):
        raise InvalidInput(f"{len(sides)} sides need as many weights of 0 or more, got {list(weights)}")
    total = sum(weights) or 1.0
    ids = dict.fromkeys(id for side in sides for id in side)
    fused = dict.fromkeys(ids, 0.0)
    for side, weight in zip(sides, weights, strict=True):
        lowest = min(side.values(), default=0.0)
        whole = standardised({id: side.get(id, lowest) for id in ids})
        for id in ids:
            fused[id] += weight / total * whole[id]
    best = sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[: max(0, k)]
    return [Match(id, score) for id, score in best]


def read_again(first: Mapping[str, float], read: Sequence[float], k: int, *, weight: float) -> list[Match]:
    """The `k` best by a first stage's scores and a reranker's, best first.

    Args:
        first: by candidate, its score before.
        read: the reranker's, in the same order; one that is no number counts as the lowest.
        k: most candidates wanted.
        weight: of the reranker against the first stage, 0..1.
    """
    lowest = min((score for score in read if isfinite(score)), default=0.0)
    again = {id: score if isfinite(score) else lowest for id, score in zip(first, read, strict=True)}
    return weighted((again, first), (weight, 1 - weight), k)


def diverse(
    found: Sequence[Match], k: int, *, alike: Callable[[str, str], float], relevance: float = 0.7
) -> list[Match]:
    """The `k` finds that are relevant and unlike each other, in the order they are chosen.

    Each next one has the highest `relevance * score - (1 - relevance) * (likeness to the most alike chosen)`, its score
    scaled to 0..1 over what was found.

    Args:
        found: candidates with scores.
        k: most finds wanted.
        alike: likeness of two candidates, 1 for equal ones.
        relevance: 1 for no diversity, 0 for diversity alone.

    Raises:
        InvalidInput: the relevance is not between 0 and 1.
    """
    if not 0 <= relevance <= 1:
        raise InvalidInput(f"relevance must be between 0 and 1, got {relevance}", param="mmr")
    scores = [match.score for match in found]
    low, span = min(scores, default=0.0), (max(scores, default=0.0) - min(scores, default=0.0)) or 1.0
    rest = {match.id: match for match in found}
    nearest = dict.fromkeys(rest, 0.0)
    chosen: list[Match] = []
    while rest and len(chosen) < k:
        worth = {
            id: relevance * (match.score - low) / span - (1 - relevance) * nearest[id] for id, match in rest.items()
        }
        best = max(rest, key=lambda id: worth[id])
        chosen.append(rest.pop(best))
        nearest.update({id: max(nearest[id], alike(id, best)) for id in rest})
    return chosen
