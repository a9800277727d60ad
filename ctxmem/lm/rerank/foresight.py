"""Fits what pruning of the interaction reranker goes by: what the layers after an exit will add to the score.

Ridge regression (Hoerl and Kennard 1970) at each exit, in one pass over queries beside candidates. The model stays as
it is and so do its final scores (cf. the second stage of DeeBERT; Xin et al., ACL 2020). Only differences between the
candidates of one query count, for pruning compares nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ctxmem.lm.rerank.interaction import Foresight, Interaction
from ctxmem.lm.rerank.rows import Row

RIDGE = 0.3
"""Added to each feature's variance, as a share of it; .3 was the best of .03, .3 and 2 on other queries."""

_FLAT = 1e-3
"""Of the mean variance, added besides, for features that hardly vary."""

QUERIES = 1000
"""Rows that a training's foresights are fitted to at most."""

_CANDIDATES = 12


class Foreseeing:
    """Sums over queries from which the foresights of a model follow.

    Args:
        model: its foresights are set by `settle`; nothing else of it changes.

    Attributes:
        queries: how many were added.
    """

    def __init__(self, model: Interaction) -> None:
        self.model, self.queries = model, 0
        self._foresights = [cast(Foresight, one) for one in model.foresights]
        exits, features = len(self._foresights), len(self._foresights[0].weights)
        self._squares = torch.zeros(exits, features, features, dtype=torch.float64)
        self._sides = torch.zeros(exits, features, dtype=torch.float64)

    def add(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> None:
        """Learn from one query beside two and more documents, as token ids without marks."""
        with torch.inference_mode():
            features, scores = self._run(query, documents)
        for done, seen in enumerate(features):
            across = (seen - seen.mean(0)).double()
            to_come = (scores[-1] - scores[done]).double()
            self._squares[done] += across.T @ across
            self._sides[done] += across.T @ (to_come - to_come.mean())
        self.queries += 1

    def settle(self) -> None:
        """Set the model's foresights."""
        for done, square in enumerate(self._squares):
            own = square.diagonal()
            added = RIDGE * (own + _FLAT * own.mean()) + 1e-9
            found = torch.linalg.solve(square + added.diag(), self._sides[done])
            self._foresights[done].weights.data.copy_(found)

    def _run(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> tuple[list[Tensor], list[Tensor]]:
        """By exit (documents, features) that its foresight is given, and (documents,) running scores, the last too."""
        features: list[Tensor] = []

        def note(foresight: Any, given: Any, _: object) -> None:
            features.append(foresight.features(*given))

        watched = [one.register_forward_hook(note) for one in self._foresights]
        try:
            pairs = self.model.begin(query, documents)
            scores = [pairs.scores]
            for at in range(len(self.model.layers)):
                pairs = self.model.advance(at, pairs)
                scores.append(pairs.scores)
        finally:
            for one in watched:
                one.remove()
        return features, scores


def foresee(model: Interaction, rows: Sequence[Row], *, seed: int) -> dict[str, Tensor]:
    """Fit a model's foresights to training rows, each a query beside a right document and its most misleading ones.

    Returns:
        The foresights' weights, by the model's names.
    """
    rng, fit = random.Random(seed), Foreseeing(model)
    for row in rng.sample(rows, min(QUERIES, len(rows))):
        near = row.negatives[: 2 * _CANDIDATES]
        fit.add(row.query, [row.positives[0], *rng.sample(near, min(_CANDIDATES - 1, len(near)))])
    fit.settle()
    return {name: weights for name, weights in model.state_dict().items() if name.startswith("foresights.")}
