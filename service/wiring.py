"""Where the adapters meet: settings in, a service out. Nothing else in the gateway names an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from ctxmem.manager import ContextManager
from ctxmem.manager.engine import Engine
from ctxmem.ports import Cache, Counter
from ctxmem.stores.sql import SqlStore
from service import auth
from service.dataplane.chat import ChatCompletions
from service.dataplane.memory import Memory
from service.metrics import Metrics
from service.settings import Settings
from service.errors import UnknownModel
from service.upstream.client import UpstreamClient, clients
from service.upstream.routing import route
from service.worker.client import RemoteCounter, RemoteScorer, WorkerClient

_THREADS = 16
"""Threads for the manager; most of their time they wait for the disk or the model worker."""


@dataclass(slots=True)
class Service:
    """Everything the gateway serves with.

    Attributes:
        settings: as loaded.
        tenants: who is who.
        upstreams: where requests go, by name.
        worker: the model worker.
        manager: the manager of all tenants.
        metrics: what is counted.
        threads: where the manager's work runs.
        draining: whether the service is going down.
    """

    settings: Settings
    tenants: auth.Tenants
    upstreams: Mapping[str, UpstreamClient]
    worker: WorkerClient
    manager: ContextManager
    metrics: Metrics = field(default_factory=Metrics)
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="manager"))
    draining: bool = False

    async def open(self) -> None:
        """Open the connection pools; needs a running loop."""
        for upstream in self.upstreams.values():
            await upstream.open()

    async def close(self) -> None:
        """Finish what is queued and let go of everything."""
        self.draining = True
        for upstream in self.upstreams.values():
            await upstream.close()
        self.threads.shutdown()
        self.manager.close()

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
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    worker = WorkerClient(settings.worker_socket)
    upstreams = clients(settings)
    engine = Engine(
        SqlStore(settings.database_url),
        _cache(settings),
        lambda model: _counter(worker, upstreams, model),
        RemoteScorer(worker),
    )
    manager = ContextManager(engine, model=settings.model, policy=settings.policy)
    return Service(settings, auth.tenants(settings), upstreams, worker, manager)


def _cache(settings: Settings) -> Cache:
    if settings.redis_url is None:
        from ctxmem.stores.memory import MemoryCache

        return MemoryCache()
    from ctxmem.stores.redis import RedisCache

    return RedisCache(settings.redis_url)


def _counter(worker: WorkerClient, upstreams: Mapping[str, UpstreamClient], model: str) -> Counter:
    """Counts for a model as the caller names it: with the tokenizer its upstream is set to, else the model's own."""
    try:
        found = route(upstreams, model)
    except UnknownModel:
        return RemoteCounter(worker, model)
    return RemoteCounter(worker, found.upstream.settings.tokenizer or found.model)
