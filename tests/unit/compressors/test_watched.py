"""Who waits for a long text is told how far it is, and can end it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import pytest

import ctxmem
from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.decisions import Decisions
from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.watched import Watched
from ctxmem.errors import Unavailable
from ctxmem.ports import TokenScores
from ctxmem.stores.memory import MemoryCache
from ctxmem.testing import DeadScorer, LengthScorer, WordCounter

TEXT = "The ship of captain Alba came to the harbour of Lisbon in 1820, and then it left. " * 4


class Stopped(Exception):
    """The caller's own."""


@dataclass(frozen=True, slots=True)
class InSteps(LengthScorer):
    """Scores in steps of a second, by its own account; `done` says which were taken."""

    steps: int = 4
    done: list[int] = field(default_factory=list, compare=False)

    def seconds(self, texts: Sequence[str]) -> float:
        return float(self.steps)

    def scoring(self, texts: Sequence[str]) -> Generator[float, None, list[TokenScores]]:
        for step in range(self.steps):
            yield 1.0
            self.done.append(step)
        return self.score(texts)


class TestProgress:
    def test_is_told_before_each_step_and_at_the_end(self) -> None:
        """In shares that grow; the scores are the scorer's own."""
        told: list[float] = []
        assert Watched(InSteps(), told.append).score([TEXT]) == LengthScorer().score([TEXT])
        assert told == [0.0, 0.25, 0.5, 0.75, 1.0]

    def test_a_scorer_without_steps_has_a_beginning_and_an_end(self) -> None:
        """And the result does not depend on who listens."""
        told: list[float] = []
        watched = ctxmem.compress(TEXT, ratio=0.5, progress=told.append)
        assert (watched, told) == (ctxmem.compress(TEXT, ratio=0.5), [0.0, 1.0])

    def test_ends_at_one_when_the_fallback_decides(self) -> None:
        """A scorer that is out of reach is no end of the story."""
        told: list[float] = []
        compress = Compressor(WordCounter(), DeadScorer(), fallback=Lexical(), progress=told.append)
        assert compress(TEXT, 20).scored_by.startswith("lexical-1")
        assert told == [0.0, 1.0]

    def test_a_deadline_holds_between_steps(self) -> None:
        """A step that would end after it is not begun."""
        scorer = InSteps()
        with pytest.raises(Unavailable, match="deadline"):
            Watched(scorer, lambda _: None).score([TEXT], deadline=0.5)
        assert scorer.done == []


class TestCancelling:
    def test_an_error_of_the_listener_ends_the_work(self) -> None:
        """Steps that were not begun are not taken, and no fallback steps in."""
        scorer = InSteps()

        def stop(share: float) -> None:
            if share >= 0.5:
                raise Stopped

        compress = Compressor(WordCounter(), scorer, fallback=Lexical(), progress=stop)
        with pytest.raises(Stopped):
            compress(TEXT, 20)
        assert scorer.done == [0, 1]

    def test_nothing_is_kept_of_it(self) -> None:
        """The next call decides anew, as if there had been no other."""

        def stop(share: float) -> None:
            raise Stopped

        decisions = Decisions(MemoryCache(), "t")
        with pytest.raises(Stopped):
            Compressor(WordCounter(), LengthScorer(), decisions=decisions, progress=stop)(TEXT, 20)
        done = Compressor(WordCounter(), LengthScorer(), decisions=decisions)(TEXT, 20)
        assert (done.cached, done.tokens_after <= 20) == (False, True)
