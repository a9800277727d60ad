"""The parts a manager works with, joined once and shared by all tenants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ctxmem.errors import ModelError
from ctxmem.job import Job
from ctxmem.manager.hot import HotStates
from ctxmem.ports import Cache, Counter, Scorer, Store
from ctxmem.ports.slots import slots_key
from ctxmem.records import Erasure, RequestRecord, Session
from ctxmem.types import Scope

if TYPE_CHECKING:
    from ctxmem.compressors.mem1.consolidate import Ahead
    from ctxmem.memories import Models

_STRIPES = 256
_SCRATCH = ("sqlite://", "sqlite:///:memory:")


@dataclass(frozen=True, slots=True)
class Engine:
    """Store, caches and models behind every tenant's manager.

    Attributes:
        store: the truth.
        cache: what may be forgotten.
        counters: gives the counter of a target model; asked anew for every request.
        scorer: self-information for the policies.
        deadline: seconds that shortening what has just arrived may take.
        memory_models: what long-term memories are searched and extracted with.
        after_answer: work that an answer to a request causes, queued with it.
        background: one thread for work that nobody waits for.
        hot: states of the sessions in use.
        locks: one of them is held while a session is read and written.
        last: called when all is closed.
    """

    store: Store
    cache: Cache
    counters: Callable[[str], Counter]
    scorer: Scorer
    deadline: float = 0.15
    memory_models: Models | None = None
    after_answer: Callable[[RequestRecord], tuple[Job, ...]] = lambda request: ()
    background: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="ctxmem-ahead")
    )
    hot: HotStates = field(init=False)
    locks: tuple[threading.Lock, ...] = field(default_factory=lambda: tuple(threading.Lock() for _ in range(_STRIPES)))

    last: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hot", HotStates(self.store, self.cache))

    def lock(self, tenant: str, session_id: str) -> threading.Lock:
        """The lock that orders this process's writes to a session."""
        return self.locks[hash((tenant, session_id)) % _STRIPES]

    def state_ahead(self, scope: Scope) -> Ahead | None:
        """The state that was worked out for a context in the background."""
        from ctxmem.manager.states import ahead_of

        return ahead_of(self.store, scope)

    def forget(self, tenant: str, session: Session) -> None:
        """Leave nothing of a session that was erased in this process or the shared cache."""
        self.hot.drop(tenant, session.id, branches=session.branches)
        self.cache.drop(tenant, [slots_key(session.id)])

    def erase_user(self, tenant: str, user_id: str) -> Erasure:
        """Erase a user. The tenant's cache is emptied, for it does not know whose texts it was made from."""
        theirs = self.store.sessions(tenant, user_id=user_id, limit=1_000_000)
        done = self.store.erase_user(tenant, user_id)
        self.hot.clear(tenant, [session.id for session in theirs])
        self.cache.clear(tenant)
        return done

    def scorer_for(self, tenant: str) -> Scorer:
        """The scorer, remembering what it scored for the tenant unless it is as quick as looking that up."""
        from ctxmem.compressors.lexical import Lexical
        from ctxmem.compressors.remembered import Remembered

        quick = isinstance(self.scorer, Lexical)
        return self.scorer if quick else Remembered(self.scorer, self.cache, tenant, self.background)

    def score_ahead(self, scorer: Scorer, texts: Callable[[], list[str]]) -> None:
        """Score texts in the background, where that saves time later."""
        from ctxmem.compressors.remembered import Remembered

        if isinstance(scorer, Remembered):
            scorer.ahead(texts())

    def close(self) -> None:
        """Finish what is queued and let go of everything."""
        self.background.shutdown(cancel_futures=True)
        self.store.close()
        self.last()


def open_engine(
    url: str,
    *,
    redis_url: str | None = None,
    scorer: str = "lexical",
    embedder: str | None = None,
    cache_dir: Path | None = None,
) -> Engine:
    """An engine in this process: SQL by URL, Redis when there is one, models loaded when first needed.

    Args:
        url: SQLAlchemy URL, such as `sqlite:///ctxmem.db` or `postgresql+psycopg://…`. `sqlite://` is a scratch
            database that goes when the engine is closed.
        redis_url: shared cache; None keeps the cache in this process.
        scorer: `lexical`, or a language model by packaged name, path or hub id.
        embedder: what long-term memories are compared with in meaning, such as `minilm`, a path or a hub id, and with
            it the shipped reranker for searches that ask for it; None compares words alone.
        cache_dir: where converted models are kept.

    Raises:
        ModelError: a model is missing.
        StoreError: the database cannot be opened.
    """
    from ctxmem.stores.sql import SqlStore
    from ctxmem.tokens.resolve import counter_for

    def counters(model: str) -> Counter:
        return counter_for(model, cache_dir=cache_dir)

    if url in _SCRATCH:
        from tempfile import TemporaryDirectory

        scratch = TemporaryDirectory(prefix="ctxmem-")
        store = SqlStore(f"sqlite:///{scratch.name}/scratch.db")
        last: Callable[[], object] = scratch.cleanup
    else:
        store, last = SqlStore(url), _nothing
    cache, scores = cache_at(redis_url), scorer_named(scorer, cache_dir)
    return Engine(store, cache, counters, scores, memory_models=_reading(embedder, cache_dir, cache), last=last)


def _nothing() -> None:
    """Nothing is left to do."""


def _reading(embedder: str | None, cache_dir: Path | None, cache: Cache) -> Models | None:
    """What memories are searched with besides words, if anything.

    Raises:
        ModelError: the embedder, or what it runs on, is missing.
    """
    if embedder is None:
        return None
    from ctxmem.memories import Embedded, Models

    try:
        from ctxmem.lm.encoder import embedder_named
        from ctxmem.lm.rerank.late import shipped
    except ImportError as error:
        raise ModelError(f'embedder {embedder!r} needs torch and transformers: pip install "ctxmem[models]"') from error
    made = embedder_named(embedder, cache_dir=cache_dir)
    return Models(Embedded(made), shipped(cache_dir, cache))


def cache_at(redis_url: str | None) -> Cache:
    """The shared cache at a URL; without one a cache of this process's own."""
    if redis_url is None:
        from ctxmem.stores.memory import MemoryCache

        return MemoryCache()
    from ctxmem.stores.redis import RedisCache

    return RedisCache(redis_url)


def scorer_named(name: str, cache_dir: Path | None = None) -> Scorer:
    """A scorer by name: `lexical`, or a language model by packaged name, path or hub id.

    Raises:
        ModelError: the model, or what it runs on, is missing.
    """
    if name == "lexical":
        from ctxmem.compressors.lexical import Lexical

        return Lexical()
    try:
        from ctxmem.lm.causal import CausalLM
    except ImportError as error:
        raise ModelError(f'scorer {name!r} needs torch and transformers: pip install "ctxmem[models]"') from error
    from ctxmem.tokens.resolve import counter_for

    counter_for(name, cache_dir=cache_dir)  # lays out the tokenizer's files, which the model reads
    return CausalLM.load(name, cache_dir=cache_dir)
