"""Processes that score side by side, one torch thread each: two threads that share a pass do less than two processes.

A call's batches are dealt out, so that also one long text is read by all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from types import TracebackType

from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.lm.causal import CausalLM, Share
from ctxmem.ports import TokenScores

_Scoring = Future[list[TokenScores]]


@dataclass(frozen=True, slots=True)
class _About:
    """What a process says of its model: its fingerprint, and the tokens it reads per second."""

    name: str
    rate: float


class ScorerPool:
    """A language model in several processes. Implements `ctxmem.ports.Scorer`; for any number of threads.

    Its scores are those of `CausalLM` up to the rounding of bf16 sums, so both have one name. A process that dies fails
    the calls it was needed for; the next call starts new ones.

    Attributes:
        name: fingerprint of the model.
        processes: how many there are; each holds the model.
    """

    def __init__(self, model: str = "smollm2", *, processes: int | None = None, cache_dir: Path | None = None) -> None:
        """Start the processes and load the model in one of them; the others load it when they are first needed.

        Args:
            model: a packaged model, a folder, or a hub id.
            processes: how many; one per core by default.
            cache_dir: where converted models are kept.

        Raises:
            InvalidInput: there is to be no process.
            ModelError: the model or its tokenizer is missing or broken.
        """
        self.processes = _cores() if processes is None else processes
        if self.processes < 1:
            raise InvalidInput(f"a pool needs a process, not {processes}", param="processes")
        self._model, self._cache_dir = model, cache_dir
        self._lock = Lock()
        self._pool = self._started()
        try:
            about = self._pool.submit(_about, model, cache_dir).result()
        except BaseException:
            self.close()
            raise
        self.name, self._rate = about.name, about.rate

    def seconds(self, texts: Sequence[str]) -> float:
        """Estimated seconds that scoring the texts takes, by their length and the speed of one process."""
        return sum(len(text.encode("utf-8", "replace")) for text in texts) / _BYTES / self._rate / self.processes

    def score(self, texts: Sequence[str], *, deadline: float | None = None) -> list[TokenScores]:
        """Score each text on its own, every token in the context of all before it in its window.

        Raises:
            Unavailable: the scores would not be there within `deadline` seconds, or a process died.
            ModelError: the model gives no number for any token of a batch.
        """
        end = None if deadline is None else time.time() + deadline  # the one clock that all processes share
        pool, shares = self._dealt(tuple(texts), end)
        try:
            return _joined([share.result() for share in shares])
        except BrokenProcessPool as error:
            self._replace(pool)
            raise Unavailable("a scoring process died") from error
        finally:
            for share in shares:
                share.cancel()  # what has not begun when another one failed: nobody waits for it

    def close(self) -> None:
        """End the processes; what is being scored is finished first."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> ScorerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _started(self) -> ProcessPoolExecutor:
        # Forking would copy a process whose torch has threads.
        return ProcessPoolExecutor(self.processes, mp_context=get_context("spawn"))

    def _dealt(self, texts: tuple[str, ...], end: float | None) -> tuple[ProcessPoolExecutor, list[_Scoring]]:
        """One share of the work for each process; a pool that broke meanwhile is replaced first."""
        work = [
            (self._model, self._cache_dir, texts, (number, self.processes), end) for number in range(self.processes)
        ]
        pool = self._pool
        try:
            return pool, [pool.submit(_score, *one) for one in work]
        except BrokenProcessPool:
            pool = self._replace(pool)
            return pool, [pool.submit(_score, *one) for one in work]

    def _replace(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        """A pool with new processes for one that broke; whoever comes second finds it there."""
        with self._lock:
            if self._pool is broken:
                self._pool = self._started()
            return self._pool


_BYTES = 4.0
"""Bytes of a token, about, where a text is not worth encoding to know how long it will take."""


def _cores() -> int:
    """Cores that this process may use; where the system does not tell, all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(shares: Sequence[list[TokenScores]]) -> list[TokenScores]:
    """The scores of all shares; each has 0 for a token that another one read."""
    return [
        TokenScores(parts[0].starts, parts[0].ends, tuple(map(sum, zip(*(part.nats for part in parts), strict=True))))
        for parts in zip(*shares, strict=True)
    ]


@cache
def _loaded(model: str, cache_dir: Path | None) -> CausalLM:
    """The model of this process."""
    return CausalLM.load(model, cache_dir=cache_dir, threads=1)


def _about(model: str, cache_dir: Path | None) -> _About:
    lm = _loaded(model, cache_dir)
    return _About(lm.name, lm.rate)


def _score(
    model: str, cache_dir: Path | None, texts: tuple[str, ...], share: Share, end: float | None
) -> list[TokenScores]:
    deadline = None if end is None else end - time.time()
    return _loaded(model, cache_dir).score(texts, deadline=deadline, share=share)
