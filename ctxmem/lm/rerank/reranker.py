"""The reranker that applications use: a layered model, a policy, a deadline and a cache under two verbs.

from ctxmem.lm.rerank.reranker import Reranker

reranker = Reranker.load()
reranker.rank("who wrote Hamlet?", ["Hamlet is a play by Shakespeare.", "Bread is made of flour."], k=1).order
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

from ctxmem.errors import InvalidInput, Unavailable
from ctxmem.lm.rerank.engine import Options, Outcome, Policy, rank
from ctxmem.lm.rerank.heap import give_back
from ctxmem.lm.rerank.layered import LayeredModel
from ctxmem.ports import Cache

DEFAULT = "minilm-interaction"
"""The shipped reranker."""

CACHED_FOR = 24 * 3600.0
"""Seconds that scores are kept in the cache."""

LONGEST_QUERY = 20_000
"""Characters; a longer one is no query."""

STREAMED = Options(chunk_tokens=256, spill_bytes=0)
"""Of a run where memory is to be small: hidden states of all chunks but one wait in a file."""

ScorerName = Literal["auto", "cross_encoder", "query_likelihood", "yes_no"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in order.

    Attributes:
        order: their places, best first, at most k.
        scores: of every candidate, by place; -inf for an empty text.
        complete: false when the deadline cut the run short: the order is the best so far.
        cost_fraction: share of the full run's work that was done.
        guarantee: largest probability that these k are not the full run's; 0 without pruning, None when the policy
            promises nothing.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    complete: bool
    cost_fraction: float
    guarantee: float | None


class Reranker:
    """Scores texts against a query. Safe to use from many threads: one request runs at a time.

    Args:
        model: what scores.
        policy: when a candidate may stop; none runs all to the end.
        options: memory and time of a run.
        cache: where full scores are kept; none by default.
        tenant: whose cache entries these are.
    """

    def __init__(
        self,
        model: LayeredModel,
        *,
        policy: Policy | None = None,
        options: Options | None = None,
        cache: Cache | None = None,
        tenant: str = "default",
    ) -> None:
        self.model, self.policy, self.options = model, policy, options or Options()
        self._cache, self._tenant = cache, tenant
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        name: str = DEFAULT,
        *,
        scorer: ScorerName = "auto",
        memory: Literal["resident", "stream"] = "resident",
        policy: Policy | None = None,
        cache: Cache | None = None,
        cache_dir: Path | None = None,
    ) -> Reranker:
        """Load a reranker by name.

        Args:
            name: `minilm-interaction` (shipped), a packaged model, a folder or a hub id.
            scorer: how a model that is not the shipped one scores; `auto` reads it from its architecture.
            memory: `stream` holds two layers at a time, keeps hidden states in a temporary file and has glibc give
                freed blocks of the whole process back at once.
            policy: when a candidate may stop.
            cache: where scores are kept.
            cache_dir: where converted models are kept.

        Raises:
            ModelError: the model is missing or broken; the message says what to install.
        """
        from ctxmem.lm.rerank.models import load_model

        stream = memory == "stream"
        if stream:
            give_back()
        model = load_model(name, scorer=scorer, stream=stream, cache_dir=cache_dir)
        return cls(model, policy=policy, options=STREAMED if stream else None, cache=cache)

    @property
    def name(self) -> str:
        """Fingerprint; equal names give equal scores."""
        return self.model.name

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """The score of each text, by a full run; scores in the cache cost nothing.

        Raises:
            Unavailable: the deadline, in seconds, passed before all were scored.
            InvalidInput: the query or a text is no text.
        """
        checked(query, texts)
        distinct = list(dict.fromkeys(texts))
        known = {text: found for text in distinct if (found := self._remembered(query, text)) is not None}
        fresh = [text for text in distinct if text not in known]
        if fresh:
            outcome = self._run(query, fresh, k=None, policy=None, deadline=deadline)
            if not outcome.complete:
                raise Unavailable(f"reranking {len(fresh)} texts takes longer than its deadline of {deadline} s")
            for text, value in zip(fresh, outcome.scores, strict=True):
                known[text] = value
                self._remember(query, text, value)
        return [known[text] for text in texts]

    def rank(self, query: str, texts: Sequence[str], *, k: int | None = None, deadline: float | None = None) -> Ranking:
        """The best k candidates in order, under the policy; past the deadline the best order so far.

        Args:
            query: what is asked.
            texts: candidates.
            k: how many are wanted; all when None or more than there are.
            deadline: seconds from now.

        Raises:
            InvalidInput: the query or a text is no text, or k is below 1.
        """
        checked(query, texts)
        if k is not None and k < 1:
            raise InvalidInput(f"k is at least 1, got {k}", param="k")
        size = min(k or len(texts), len(texts))
        outcome = self._run(query, texts, k=size or None, policy=self.policy, deadline=deadline)
        promise = 0.0 if self.policy is None or outcome.cost >= 1.0 else self._promised(size)
        return Ranking(
            outcome.order[:size], outcome.scores, outcome.complete, outcome.cost, promise if outcome.complete else None
        )

    def traces(self, queries: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[tuple[float, ...], ...]]:
        """Full runs for `ctxmem.retrieval.pruning.calibrate`: of each query, by exit, all candidates' scores."""
        options = Options(chunk_tokens=self.options.chunk_tokens, trace=True)
        return [self._locked(partial(rank, self.model, *asked, options=options)).trace for asked in queries]

    def close(self) -> None:
        """Let go of files and threads."""
        self.model.close()

    def _run(
        self, query: str, texts: Sequence[str], *, k: int | None, policy: Policy | None, deadline: float | None
    ) -> Outcome:
        chosen = Options(self.options.chunk_tokens, self.options.spill_bytes, deadline)
        return self._locked(lambda: rank(self.model, query, texts, k=k, policy=policy, options=chosen))

    def _locked(self, work: Callable[[], Outcome]) -> Outcome:
        with self._turn:
            return work()

    def _promised(self, k: int) -> float | None:
        matches = getattr(self.policy, "k", None) == k and getattr(self.policy, "model", None) == self.name
        return getattr(self.policy, "alpha", None) if matches else None

    def _remembered(self, query: str, text: str) -> float | None:
        packed = self._cache.get(self._tenant, self._key(query, text)) if self._cache else None
        return struct.unpack("<d", packed)[0] if packed and len(packed) == 8 else None

    def _remember(self, query: str, text: str, value: float) -> None:
        if self._cache and math.isfinite(value):
            self._cache.put(self._tenant, self._key(query, text), struct.pack("<d", value), ttl=CACHED_FOR)

    def _key(self, query: str, text: str) -> str:
        parts = (sha256(part.encode("utf-8", "surrogatepass")).hexdigest() for part in (query, text))
        return f"rerank:{self.name}:{':'.join(parts)}"


def checked(query: object, texts: Sequence[object]) -> None:
    """See that a query and its candidates are texts.

    Raises:
        InvalidInput: they are not; the message names the one at fault.
    """
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput("query is a text that is not empty", param="query")
    if len(query) > LONGEST_QUERY:
        raise InvalidInput(f"query has {len(query):,} characters; at most {LONGEST_QUERY:,} are read", param="query")
    if isinstance(texts, str):
        raise InvalidInput("documents are a list of texts, not one text", param="documents")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"documents[{place}] is no text", param=f"documents[{place}]")
