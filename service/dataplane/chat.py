"""Turns of a conversation as a raw ASGI app: receive, build, send on, relay, record.

Serves every wire of `ctxmem.wires.known`: OpenAI chat, OpenAI Responses, Anthropic Messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import Receive, Scope, Send

from ctxmem.errors import CtxmemError, InvalidInput
from ctxmem.wires import splice
from ctxmem.wires.known import WIRES
from ctxmem.wires.splice import Body
from ctxmem.wires.wire import Wire
from service import auth, errors
from service.dataplane import receive as receiving
from service.dataplane.memory import Memory, Turn
from service.dataplane.receive import Attended, ClientGone
from service.dataplane.relay import Clock, Relay
from service.errors import Overloaded, UpstreamError
from service.metrics import Metrics
from service.respond import refuse
from service.settings import LOCAL, Settings
from service.upstream.client import Cut, UpstreamClient
from service.upstream.routing import Route, route
from service.wire.encoding import unpacked
from service.wire.headers import Directives, Headers, directives, first, to_upstream
from service.worker.behind import HEADER
from service.worker.client import affinity

PREFIX = "/v1"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as received and understood.

    Attributes:
        tenant: whose it is.
        wire: how it is written.
        headers: raw request headers.
        directives: what it asks of us.
        received: the body as it came over the wire.
        body: the body unpacked and split.
        route: where it goes.
    """

    tenant: str
    wire: Wire
    headers: Headers
    directives: Directives
    received: bytes
    body: Body
    route: Route

    def payload(self, content: bytes) -> tuple[bytes, Headers]:
        """Bytes and headers to forward for a JSON body: as received, packed or not, when it is the one that came."""
        if self.route.model != self.body.text("model"):
            content = splice.split(content).edited({"model": splice.quoted(self.route.model)})
        if content is self.body.original:
            return self.received, self.headers
        return content, [(name, value) for name, value in self.headers if name != b"content-encoding"]


@dataclass(slots=True)
class ChatCompletions:
    """The ASGI app.

    Attributes:
        settings: limits.
        tenants: who is who.
        upstreams: where requests go, by name.
        memory: builds and records.
        metrics: what is counted.
        inflight: requests being served.
    """

    settings: Settings
    tenants: auth.Tenants
    upstreams: Mapping[str, UpstreamClient]
    memory: Memory
    metrics: Metrics
    inflight: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every refusal is an error object of its wire."""
        wire = WIRES[scope["path"].removeprefix(PREFIX)]
        self.inflight += 1
        self.metrics.inflight.set(self.inflight)
        clock = Clock()
        try:
            if self.inflight > self.settings.max_inflight:
                raise Overloaded(f"more than {self.settings.max_inflight} requests are in flight")
            asked = await self._asked(wire, scope["headers"], receive, clock)
            await self._serve(asked, receive, send, clock)
        except ClientGone:
            self.metrics.disconnects.inc()
        except CtxmemError as error:
            await self._refuse(send, error, wire)
        finally:
            self.inflight -= 1
            self.metrics.inflight.set(self.inflight)
            self.metrics.overhead.observe(clock.overhead)

    async def _serve(self, asked: Asked, receive: Receive, send: Send, clock: Clock) -> None:
        name = asked.route.upstream.settings.name
        relay = Relay(asked.tenant, asked.wire, await self._turn(asked, receive), self.memory, send, clock)
        try:
            async with Attended(receive):
                await self._exchange(asked, relay)
            self.metrics.requests.labels(name, relay.status).inc()
        except ClientGone:
            await relay.close()
            raise
        except Cut:
            self.metrics.upstream_errors.labels("cut").inc()
            await relay.close()
            raise
        except UpstreamError as error:
            self.metrics.upstream_errors.labels(error.code).inc()
            await relay.close()
            await self._refuse(send, error, asked.wire, upstream=name, headers=relay.turn.headers)

    async def _refuse(
        self, send: Send, error: CtxmemError, wire: Wire, *, upstream: str = "none", headers: Headers = ()
    ) -> None:
        self.metrics.requests.labels(upstream, errors.answer(error).status).inc()
        await refuse(send, error, headers=headers, anthropic=not wire.bearer)

    async def _asked(self, wire: Wire, headers: Headers, receive: Receive, clock: Clock) -> Asked:
        tenant = self.tenants.of(dict(headers))
        wishes = directives(headers)
        limit = self.settings.max_body_bytes
        start = perf_counter()
        received = await receiving.body(receive, headers, limit=limit, timeout_s=self.settings.body_timeout_s)
        clock.since(start)
        encoding = first(headers, b"content-encoding").decode("latin-1")
        body = splice.split(unpacked(received, encoding, limit=limit) if encoding else received)
        model = body.text("model")
        if not model:
            raise InvalidInput("you must provide a model parameter", param="model")
        return Asked(tenant, wire, headers, wishes, received, body, route(self.upstreams, model))

    async def _turn(self, asked: Asked, receive: Receive) -> Turn:
        aside = "off" if asked.directives.mode == "off" else asked.wire.aside(asked.body)
        if aside:
            return Turn(asked.body.content, f"bypass;reason={aside}")
        upstream = asked.route.upstream.settings
        async with Attended(receive):
            return await self.memory.build(asked.tenant, asked.wire, asked.body, asked.directives, upstream)

    async def _exchange(self, asked: Asked, relay: Relay) -> None:
        client = asked.route.upstream
        payload, headers = asked.payload(relay.turn.content)
        prepared = relay.turn.prepared
        sent = to_upstream(headers, key=client.key, readable=prepared is not None, bearer=asked.wire.bearer)
        if client.settings.name == LOCAL and prepared is not None:
            sent.append(("x-ctxmem-session", affinity(asked.tenant, prepared.session_id)))
            sent.extend([(HEADER, relay.turn.behind.header)] if relay.turn.behind is not None else [])
        start = perf_counter()
        async with client.send("POST", asked.wire.path, headers=sent, body=payload) as reply:
            self.metrics.ttfb.labels(client.settings.name).observe(relay.clock.since(start))
            await relay.run(reply)
