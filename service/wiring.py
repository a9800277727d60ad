"""Where the adapters meet: settings in, a service out. Nothing else in the gateway names an adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import StoreError, Unavailable
from ctxmem.ledger import CacheTerms
from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine, cache_at
from ctxmem.memories import Models
from ctxmem.ports import Counter, DocumentStore, Jobs
from ctxmem.stores.sql import SqlStore
from ctxmem.tokens.estimate import Estimate
from service import auth
from service.dataplane.chat import ChatCompletions
from service.dataplane.memory import Memory, cache_terms
from service.errors import UnknownModel
from service.metrics import Metrics
from service.settings import Settings
from service.upstream.client import UpstreamClient, clients
from service.upstream.routing import route
from service.worker.client import RemoteCounter, RemoteScorer, WorkerClient
from service.worker.library import RemoteLibrary, RemoteReranker

if TYPE_CHECKING:
    from service.states import StatesAhead

_THREADS = 12
"""Threads for the manager; most of their time they wait for the disk or the model worker."""


@dataclass(slots=True)
class Service:
    """Everything the gateway serves with.

    Attributes:
        settings: as loaded.
        tenants: who is who.
        upstreams: where requests go, by name.
        worker: the model worker; None when no model is set.
        manager: the manager of all tenants.
        documents: the truth about documents.
        jobs: the outbox.
        ahead: works out states after answers; None when no model is set for it.
        library: documents, by the model worker; None when no model is set.
        metrics: what is counted.
        threads: where the manager's work runs.
        draining: whether the service is going down.
    """

    settings: Settings
    tenants: auth.Tenants
    upstreams: Mapping[str, UpstreamClient]
    worker: WorkerClient | None
    manager: ContextManager
    documents: DocumentStore
    jobs: Jobs
    library: RemoteLibrary | None = None
    ahead: StatesAhead | None = None
    metrics: Metrics = field(default_factory=Metrics)
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="manager"))
    draining: bool = False

    def cache_terms(self, model: str) -> CacheTerms:
        """How the upstream that serves a model prices its prompt cache."""
        try:
            return cache_terms(route(self.upstreams, model).upstream.settings)
        except UnknownModel:
            return CacheTerms()

    def state(self) -> dict[str, str]:
        """How each part is: `ok`, `none`, or what is wrong with it; waits for all of them."""
        return {"sql": self._sql_state(), "worker": self._worker_state(), "redis": self._cache_state()}

    async def open(self) -> None:
        """Open the connection pools; needs a running loop."""
        for upstream in self.upstreams.values():
            await upstream.open()
        if self.ahead is not None:
            self.ahead.start()

    async def close(self) -> None:
        """Finish what is queued and let go of everything."""
        self.draining = True
        if self.ahead is not None:
            await self.ahead.stop()
        for upstream in self.upstreams.values():
            await upstream.close()
        self.threads.shutdown()
        self.manager.close()
        if self.worker is not None:
            self.worker.close()
        if self.library is not None:
            self.library.close()

    def _sql_state(self) -> str:
        try:
            health = self.manager.engine.store.health()
        except StoreError as error:
            return error.code
        if health["migrations"] != "head":
            return f"migrations: {health['migrations']}"
        return health["write"]

    def _worker_state(self) -> str:
        if self.worker is None:
            return "none"
        try:
            state = self.worker.health().state
        except Unavailable:
            return "down"
        return "ok" if state == "ready" else state

    def _cache_state(self) -> str:
        if self.settings.redis_url is None:
            return "none"
        cache, proof = self.manager.engine.cache, b"%d" % time.time_ns()
        cache.put("", "ready", proof, ttl=10)
        return "ok" if cache.get("", "ready") == proof else "down"

    def chat(self) -> ChatCompletions:
        """The data plane over these parts."""
        memory = Memory(self.manager, self.threads, self.metrics)
        return ChatCompletions(self.settings, self.tenants, self.upstreams, memory, self.metrics)


def service(settings: Settings) -> Service:
    """Join the parts.

    Raises:
        ConfigError: a key or a file that the settings name is not there.
        StoreError: the database cannot be opened.
    """
    worker = WorkerClient(settings.worker_socket) if settings.model else None
    upstreams = clients(settings)
    kept = store(settings)
    metrics = Metrics()
    library = RemoteLibrary(settings.worker_socket, metrics) if settings.model else None
    engine = Engine(
        kept,
        cache_at(settings.redis_url),
        lambda model: _counter(worker, upstreams, model),
        RemoteScorer(worker) if worker else Lexical(),
        deadline=settings.deadline_ms / 1000,
        memory_models=Models(reranker=RemoteReranker(library)) if library else None,
        **_after_answers(settings),
    )
    manager = ContextManager(engine, model=settings.model, policy=settings.policy)
    ahead = _ahead(settings, manager, kept.jobs, upstreams)
    tenants = auth.tenants(settings)
    return Service(settings, tenants, upstreams, worker, manager, kept.documents, kept.jobs, library, ahead, metrics)


def store(settings: Settings) -> SqlStore:
    """The database, its tables made or brought up to date.

    Raises:
        ConfigError: its URL is wrong.
        StoreError: it cannot be opened.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqlStore(settings.database_url)


def _after_answers(settings: Settings) -> dict[str, Any]:
    """What the engine does after answers: queue states to be worked out, when a model is set for it."""
    if not settings.state_model:
        return {}
    from ctxmem.manager.consolidation import wanted

    return {"after_answer": wanted}


def _ahead(
    settings: Settings, manager: ContextManager, jobs: Jobs, upstreams: Mapping[str, UpstreamClient]
) -> StatesAhead | None:
    if not settings.state_model:
        return None
    from service.states import StatesAhead

    return StatesAhead(manager, jobs, upstreams, settings.state_model)


def _counter(worker: WorkerClient | None, upstreams: Mapping[str, UpstreamClient], model: str) -> Counter:
    """Counts for a model as the caller names it: with the tokenizer its upstream is set to, else the model's own."""
    try:
        found = route(upstreams, model)
    except UnknownModel:
        return RemoteCounter(worker, model) if worker else Estimate()
    set_to = found.upstream.settings
    return RemoteCounter(worker, set_to.tokenizer or found.model) if worker else Estimate(window=set_to.window)
