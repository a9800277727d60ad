"""Scoring that tells how far it is, and that ends when whoever is told raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctxmem.ports import Scorer, SteppedScorer, TokenScores, in_time

Progress = Callable[[float], None]
"""Told the share of the work that is done, by estimate, in [0, 1]; never less than before."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A scorer whose caller is told how far it is.

    Told 0 before anything is read, the share that is done before each further step, and 1 at the end. Of a scorer that
    takes no steps the beginning and the end are told. What `progress` raises ends the work between two steps and
    reaches the caller.

    Attributes:
        scorer: does the work.
        progress: is told.
    """

    scorer: Scorer
    progress: Progress

    @property
    def name(self) -> str:
        return self.scorer.name

    def seconds(self, texts: Sequence[str]) -> float:
        """As the scorer estimates."""
        return self.scorer.seconds(texts)

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """As the scorer scores.

        Raises:
            Unavailable: the deadline would be missed, or the scorer is out of reach.
        """
        self.progress(0.0)
        if isinstance(self.scorer, SteppedScorer):
            scores = self._stepped(self.scorer, texts, deadline)
        else:
            scores = self.scorer.score(texts, deadline=deadline)
        self.progress(1.0)
        return scores

    def _stepped(self, scorer: SteppedScorer, texts: Sequence[str], deadline: float | None) -> list[TokenScores]:
        total, done = 0.0, 0.0

        def tell(needed: float) -> None:
            nonlocal total, done
            if done:
                self.progress(min(1.0, done / total))
            else:
                total = scorer.seconds(texts)
            done += needed

        return in_time(scorer.scoring(texts), deadline, tell)
