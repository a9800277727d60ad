"""What the service counts, for Prometheus. Labels carry names from the settings only, never a caller's text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The service's own registry and what is in it.

    Attributes:
        overhead: seconds of a request not spent waiting for the upstream.
        ttfb: seconds from sending a request to the head of its answer.
        tokens: prompt tokens that came in, went out, and were saved.
        cache_tokens: prompt tokens the upstream says it read from, wrote to, or did not find in its cache.
        skipped: requests that went on without us, by reason.
        requests: finished requests by upstream and status.
        inflight: requests being served.
        disconnects: clients that left before their answer's end.
        upstream_errors: upstream failures by code.
        searches: searches of documents, by where their finds came from: `index` or `cache`.
        reranked: texts put in order by the model worker, by where their scores came from: `model` or `cache`.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.overhead = Histogram(
            "ctxmem_overhead_seconds", "Time not spent waiting for the upstream.", registry=registry, buckets=_FAST
        )
        self.ttfb = Histogram(
            "ctxmem_upstream_ttfb_seconds",
            "Time to the head of the upstream's answer.",
            ["upstream"],
            registry=registry,
            buckets=_SLOW,
        )
        self.tokens = Counter("ctxmem_tokens", "Prompt tokens.", ["stage"], registry=registry)
        self.cache_tokens = Counter("ctxmem_cache_tokens", "Prompt tokens by cache.", ["kind"], registry=registry)
        self.skipped = Counter("ctxmem_compress_skipped", "Requests left alone.", ["reason"], registry=registry)
        self.requests = Counter("ctxmem_requests", "Finished requests.", ["upstream", "status"], registry=registry)
        self.inflight = Gauge("ctxmem_inflight", "Requests being served.", registry=registry)
        self.disconnects = Counter("ctxmem_client_disconnect", "Clients that left early.", registry=registry)
        self.upstream_errors = Counter("ctxmem_upstream_errors", "Upstream failures.", ["code"], registry=registry)
        self.searches = Counter("ctxmem_searches", "Searches of documents.", ["by"], registry=registry)
        self.reranked = Counter("ctxmem_reranked", "Texts put in order.", ["by"], registry=registry)

    def exposition(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)
