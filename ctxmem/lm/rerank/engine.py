"""All candidates of a request go through the model together, layer by layer, and leave as soon as a policy says so.

Source: GRATING / PRISM (arXiv 2510.15620): monolithic forwarding (section 3), pruning between layers (4.1), chunked
execution (4.3). Weights come from `ctxmem.lm.rerank.weights`, resident or streamed (4.2).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ctxmem.errors import InvalidInput
from ctxmem.lm.rerank.layered import Encoded, LayeredModel, State

CHUNK_TOKENS = 2048
"""Padded tokens that go through a layer at once."""


class Policy(Protocol):
    """Decides at an exit who may stop; see `ctxmem.retrieval.pruning`."""

    def prune(self, paths: Sequence[Sequence[float]], slots: int) -> tuple[frozenset[int], frozenset[int]]:
        """The places to accept and to drop, from the running candidates' scores at each exit so far."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found.

    Attributes:
        scores: of each candidate, from the last layer it ran through; -inf for an empty or unscorable text.
        order: places, best first.
        complete: whether every candidate that the policy let run was run to its end.
        cost: share of the full run's layer x candidate work that was done, 0 to 1.
        layers: layers each candidate ran through.
        trace: by exit, the scores of all candidates, when asked for.
    """

    scores: tuple[float, ...]
    order: tuple[int, ...]
    complete: bool
    cost: float
    layers: tuple[int, ...]
    trace: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """How a run uses memory and time.

    Attributes:
        chunk_tokens: padded tokens that go through a layer at once.
        spill_bytes: hidden states above this many bytes wait in a temporary file; None keeps all in memory.
        deadline: seconds from the call; past it the scores of the layer before stand.
        trace: keep every exit's scores.
    """

    chunk_tokens: int = CHUNK_TOKENS
    spill_bytes: int | None = None
    deadline: float | None = None
    trace: bool = False


def rank(
    model: LayeredModel,
    query: str,
    texts: Sequence[str],
    *,
    k: int | None = None,
    policy: Policy | None = None,
    options: Options | None = None,
) -> Outcome:
    """Score candidates against a query and order them.

    Args:
        model: the reranker.
        query: what is asked.
        texts: candidates; an empty or blank one scores -inf and costs nothing.
        k: size of the result that a policy keeps exact; more than there are candidates means all of them.
        policy: when a candidate may stop; none runs all to the end.
        options: memory and time.

    Raises:
        InvalidInput: k is below 1.
    """
    if k is not None and k < 1:
        raise InvalidInput(f"k is at least 1, got {k}", param="k")
    chosen = options or Options()
    end = math.inf if chosen.deadline is None else time.monotonic() + chosen.deadline
    run = _Run(model, texts, slots=min(k or len(texts), len(texts)), policy=policy, options=chosen)
    with torch.inference_mode():
        done = run.through(query, end)
    return run.outcome(complete=done)


class _Run:
    """One request on its way through the layers."""

    def __init__(
        self, model: LayeredModel, texts: Sequence[str], *, slots: int, policy: Policy | None, options: Options
    ) -> None:
        self.model, self.texts, self.slots, self.policy, self.options = model, texts, slots, policy, options
        self.scores = [-math.inf] * len(texts)
        self.reached = [0] * len(texts)
        self.tier = [0 if text.strip() else -2 for text in texts]  # 1 accepted, 0 running, -1 dropped, -2 empty
        self.trace: list[list[float]] = []
        self.filled = [place for place, text in enumerate(texts) if text.strip()]
        self.chunks: list[_Chunk] = []

    def through(self, query: str, end: float) -> bool:
        """Run the layers; whether the deadline held."""
        if not self.filled or time.monotonic() >= end:
            return not self.filled
        encoded = self.model.encode(query, [self.texts[place] for place in self.filled])
        with closing(_Spill(self.options.spill_bytes)) as store:
            return self._layers(encoded, store, end)

    def _layers(self, encoded: Encoded, store: _Spill, end: float) -> bool:
        found: dict[int, float] = {}
        for seats in chunked(encoded, self.options.chunk_tokens):
            state = self.model.begin(encoded, seats)
            places = [self.filled[seat] for seat in seats]
            found |= self._scored(0, state, places)
            self.chunks.append(_Chunk(places, store.put(state)))
        self._judge(0, found, store)
        for at in range(self.model.layers):
            if not self.chunks:
                break
            if not self._layer(at, store, end):
                return False
        return True

    def _layer(self, at: int, store: _Spill, end: float) -> bool:
        """Run one layer over every chunk; false when time ran out, with the layer's scores left as they were."""
        found: dict[int, float] = {}
        for chunk in self.chunks:
            if time.monotonic() >= end:
                return False
            state = self.model.advance(at, store.take(chunk.held))
            found |= self._scored(at + 1, state, chunk.places)
            chunk.held = store.put(state)
            for place in chunk.places:
                self.reached[place] = at + 1
        self._judge(at + 1, found, store)
        return True

    def _scored(self, done: int, state: State, places: Sequence[int]) -> dict[int, float]:
        """By place, what the candidates of a chunk score after so many layers; empty where that is no exit."""
        if done not in self.model.exits:
            return {}
        return dict(zip(places, self.model.scores(done, state).tolist(), strict=True))

    def _judge(self, done: int, found: Mapping[int, float], store: _Spill) -> None:
        """Take the scores of an exit, and let go whom the policy lets go."""
        for place, score in found.items():
            self.scores[place] = score if math.isfinite(score) else -math.inf
        if not found:
            return
        self.trace.append(list(self.scores))
        if self.policy is not None and done < self.model.layers:
            self._prune(store, self.policy)

    def _prune(self, store: _Spill, policy: Policy) -> None:
        running = [place for chunk in self.chunks for place in chunk.places]
        accept, drop = policy.prune([[scores[place] for scores in self.trace] for place in running], self.slots)
        for seats, tier in ((accept, 1), (drop, -1)):
            for seat in seats:
                self.tier[running[seat]] = tier
        self.slots -= len(accept)
        left = len(running) - len(accept) - len(drop)
        if self.slots <= 0 or left == self.slots:
            self.chunks = []  # who is in is decided
            return
        for chunk in self.chunks:
            kept = [seat for seat, place in enumerate(chunk.places) if self.tier[place] == 0]
            if len(kept) < len(chunk.places):
                chunk.held = store.put(store.take(chunk.held).keep(torch.tensor(kept, dtype=torch.long)))
                chunk.places = [chunk.places[seat] for seat in kept]
        self.chunks = [chunk for chunk in self.chunks if chunk.places]

    def outcome(self, *, complete: bool) -> Outcome:
        order = sorted(range(len(self.texts)), key=lambda place: (-self.tier[place], -self.scores[place], place))
        work = sum(self.reached) / max(1, self.model.layers * len(self.filled))
        trace = tuple(map(tuple, self.trace)) if self.options.trace else ()
        return Outcome(tuple(self.scores), tuple(order), complete, work, tuple(self.reached), trace)


@dataclass(slots=True)
class _Chunk:
    """Candidates that go through a layer at once, and what holds their state."""

    places: list[int]
    held: State | int


class _Spill:
    """Keeps the states of waiting chunks in memory up to a limit, then in files of a temporary folder.

    Args:
        limit: bytes of hidden states kept in memory; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit, self._used = limit, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._next = 0

    def put(self, state: State) -> State | int:
        """Keep a state; returns it, or the number to take it by."""
        size = state.states.nbytes
        if self._limit is None or self._used + size <= self._limit:
            self._used += size
            return state
        self._next += 1
        torch.save(state, self._path(self._next))
        return self._next

    def take(self, held: State | int) -> State:
        """The state, no longer kept here."""
        if not isinstance(held, int):
            self._used -= held.states.nbytes
            return held
        path = self._path(held)
        state: State = torch.load(path, weights_only=False)  # written by this very process, in a folder of its own
        path.unlink()
        return state

    def close(self) -> None:
        """Remove what was written."""
        if self._folder is not None:
            self._folder.cleanup()

    def _path(self, number: int) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ctxmem-rerank-")
        return Path(self._folder.name) / f"{number}.pt"


def chunked(encoded: Encoded, tokens: int) -> list[list[int]]:
    """Candidates of like length together, each chunk within a budget of padded tokens."""
    order = sorted(range(len(encoded.rows)), key=encoded.length)
    chunks: list[list[int]] = []
    for seat in order:
        longest = encoded.length(seat)
        if chunks and longest * (len(chunks[-1]) + 1) <= tokens:
            chunks[-1].append(seat)
        else:
            chunks.append([seat])
    return chunks
