"""The reranker that applications use: a layered model, a policy, a deadline and a cache under two verbs.

from ctxmem.lm.rerank.reranker import Reranker

reranker = Reranker.load()
reranker.rank("who wrote Hamlet?", ["Hamlet is a play by Shakespeare.", "Bread is made of flour."], k=1).order
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
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

_SCORE = struct.Struct("<d")

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

    Implements `ctxmem.ports.Remembering`. With a cache a text that was scored in full for the same query is not run
    again, in any process that shares the cache. Beside other texts a score may differ by the rounding of float32, about
    1e-6 of its size, with a cache and without.

    Args:
        model: what scores.
        policy: when a candidate may stop; none runs all to the end.
        options: memory and time of a run.
        cache: where full scores are kept; none by default.
        tenant: whose cache entries these are.

    Attributes:
        remembered: texts whose scores came from the cache, in all that was asked of this object.
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
        self.remembered = 0
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

    def of(self, tenant: str) -> Reranker:
        """The same for a tenant, with cache entries of its own: one model, one request at a time for all of them."""
        made = Reranker(self.model, policy=self.policy, options=self.options, cache=self._cache, tenant=tenant)
        made._turn = self._turn
        return made

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> list[float]:
        """The score of each text, by a full run; scores in the cache cost nothing.

        Raises:
            Unavailable: the deadline, in seconds, passed before all were scored.
            InvalidInput: the query or a text is no text.
        """
        checked(query, texts)
        found = self._scored(query, texts, deadline=deadline)
        if not found.complete:
            raise Unavailable(f"reranking {len(texts)} texts takes longer than its deadline of {deadline} s")
        return list(found.scores)

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
        outcome = self._outcome(query, texts, k=size or None, deadline=deadline)
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

    def _outcome(self, query: str, texts: Sequence[str], *, k: int | None, deadline: float | None) -> Outcome:
        """A run under the policy, or what the cache knows of it.

        A score that a deadline or the policy cut short cannot be compared with a full one, so then it is all or none.
        """
        if self._cache is not None and self.policy is None and deadline is None:
            return self._scored(query, texts, deadline=None)
        known = self._known(query, texts)
        if len(known) == len(set(texts)):
            return self._joined(texts, known, {}, 0.0)
        outcome = self._locked(lambda: self._run(query, texts, k=k, policy=self.policy, deadline=deadline))
        if outcome.complete and self.policy is None:
            self._remember(query, dict(zip(texts, outcome.scores, strict=True)))
        return outcome

    def _scored(self, query: str, texts: Sequence[str], *, deadline: float | None) -> Outcome:
        """Full scores of all texts; those that are missing are run, unless another thread did so meanwhile."""
        known = self._known(query, texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if not missing:
            return self._joined(texts, known, {}, 0.0)
        with self._turn:
            known |= self._known(query, missing)
            fresh = [text for text in missing if text not in known]
            outcome = self._run(query, fresh, k=None, policy=None, deadline=deadline)
            found = dict(zip(fresh, outcome.scores, strict=True))
            if outcome.complete:
                self._remember(query, found)
        return self._joined(texts, known, found, outcome.cost) if outcome.complete else outcome

    def _joined(
        self, texts: Sequence[str], known: Mapping[str, float], fresh: Mapping[str, float], cost: float
    ) -> Outcome:
        """Full scores as of one run: best first, what is no text last. `cost` is that of the fresh ones."""
        by_text = {**known, **fresh}
        scores = tuple(by_text[text] for text in texts)
        order = sorted(range(len(texts)), key=lambda place: (not texts[place].strip(), -scores[place], place))
        ran, filled = (sum(bool(text.strip()) for text in some) for some in (fresh, by_text))
        self.remembered += filled - ran
        return Outcome(scores, tuple(order), complete=True, cost=cost * ran / max(1, filled), layers=())

    def _run(
        self, query: str, texts: Sequence[str], *, k: int | None, policy: Policy | None, deadline: float | None
    ) -> Outcome:
        chosen = Options(self.options.chunk_tokens, self.options.spill_bytes, deadline)
        return rank(self.model, query, texts, k=k, policy=policy, options=chosen)

    def _locked(self, work: Callable[[], Outcome]) -> Outcome:
        with self._turn:
            return work()

    def _promised(self, k: int) -> float | None:
        matches = getattr(self.policy, "k", None) == k and getattr(self.policy, "model", None) == self.name
        return getattr(self.policy, "alpha", None) if matches else None

    def _known(self, query: str, texts: Sequence[str]) -> dict[str, float]:
        """Full scores that are in the cache, by text; without a cache none, with one those of empty texts, too."""
        if self._cache is None:
            return {}
        distinct = set(texts)
        filled = [text for text in distinct if text.strip()]
        packed = {text: self._cache.get(self._tenant, self._key(query, text)) or b"" for text in filled}
        read = {text: _SCORE.unpack(one)[0] for text, one in packed.items() if len(one) == _SCORE.size}
        known = {text: score for text, score in read.items() if math.isfinite(score)}
        return known | dict.fromkeys(distinct.difference(filled), -math.inf)

    def _remember(self, query: str, scores: Mapping[str, float]) -> None:
        for text, value in scores.items():
            if self._cache is not None and math.isfinite(value):
                self._cache.put(self._tenant, self._key(query, text), _SCORE.pack(value), ttl=CACHED_FOR)

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
