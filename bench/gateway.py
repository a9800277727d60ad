"""What a proxy adds: CPU per small request and per streamed event, memory, start-up; ctxmem beside its peers.

    bench/peers.sh                       # installs LiteLLM's and headroom's proxies, once, outside the checkout
    python -m bench.gateway --rounds 5 --json out.json

One scripted upstream and one load client, each a process of its own on loopback; the proxies take turns. CPU is that of
the proxy's whole process tree. The cost of an event is the slope between short and long streams, so that what a stream
costs as a request does not count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import harness
from bench.peers import KEY, installed
from bench.servers import Server, scripted_upstream
from bench.stack import Stack, stack

SHORT, LONG = 10, 210
"""Content events of the short and the long streams."""
SETTLE_S = 0.3
"""Seconds for work that a proxy does after it has answered: writing logs, committing."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way for a client to reach the upstream.

    Attributes:
        name: in the table.
        url: where the client sends to.
        pid: root of the process tree that is paid for; None for the direct way.
        headers: what the client adds.
    """

    name: str
    url: str
    pid: int | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent in a round.

    Attributes:
        requests: small requests.
        streams: streamed answers of each length.
        connections: at once.
    """

    requests: int
    streams: int
    connections: int


def measure(candidate: Candidate, load: Load) -> dict[str, float]:
    """One round of one candidate.

    Returns:
        CPU milliseconds per request and CPU microseconds per streamed event of its process tree, and the client's
        median wait per request in milliseconds.
    """
    cpu, seen = _attack(candidate, load.requests, 0, load.connections)
    short, _ = _attack(candidate, load.streams, SHORT, load.connections)
    long, _ = _attack(candidate, load.streams, LONG, load.connections)
    events = load.streams * (LONG - SHORT)
    waits = {"wait per request, ms (p50)": float(seen["p50_ms"])}
    if candidate.pid is None:
        return waits
    return {
        "CPU per request, ms": 1000 * cpu / load.requests,
        "CPU per streamed event, us": 1e6 * (long - short) / events,
        **waits,
    }


def _attack(candidate: Candidate, requests: int, events: int, connections: int) -> tuple[float, dict[str, float]]:
    """CPU seconds of the candidate's tree while the load client runs, and what the client saw."""
    argv = [sys.executable, "-m", "bench.load", candidate.url, "--requests", str(requests), "--events", str(events)]
    argv += ["--connections", str(connections), "--headers", json.dumps(dict(candidate.headers))]
    before = harness.cpu_seconds(candidate.pid) if candidate.pid else 0.0
    done = subprocess.run(argv, capture_output=True, text=True, cwd=harness.ROOT, check=True)
    time.sleep(SETTLE_S)
    after = harness.cpu_seconds(candidate.pid) if candidate.pid else 0.0
    seen = json.loads(done.stdout)
    if seen["failed"]:
        raise RuntimeError(f"{candidate.name}: {seen['failed']} of {requests} requests failed: {done.stderr[:2000]}")
    return after - before, seen


def candidates(upstream: Server, ours: Stack, peers: list[Server]) -> list[Candidate]:
    """Direct, ctxmem in three modes, and the peers."""
    modes = {
        f"ctxmem {mode}": Candidate(f"ctxmem {mode}", ours.url, ours.server.pid, ours.headers | {"x-ctxmem-mode": mode})
        for mode in ("off", "observe", "on")
    }
    others = [Candidate(p.name, p.url, p.pid, {"authorization": f"Bearer {KEY}"}) for p in peers]
    return [Candidate("direct", upstream.url, None), *modes.values(), *others]


def standing(server: Server, gateway: int) -> dict[str, object]:
    """What a started proxy holds: seconds to ready, peak memory of its tree and of the process that serves, torch."""
    maps = Path(f"/proc/{gateway}/maps")
    return {
        "proxy": server.name,
        "ready_s": round(server.seconds, 2),
        "tree_mb": round(harness.peak_rss(server.pid) / 2**20, 1),
        "gateway_mb": round(harness.own_peak_rss(gateway) / 2**20, 1),
        "torch": "libtorch" in maps.read_text() if maps.exists() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300, help="small requests per round")
    parser.add_argument("--streams", type=int, default=20, help="streams of each length per round")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--model", default="", help="ctxmem's local model, whose worker then counts; none by default")
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    load = Load(given.requests, given.streams, given.connections)
    with TemporaryDirectory(prefix="ctxmem-bench-") as name, ExitStack() as running:
        folder = Path(name)
        upstream = running.enter_context(scripted_upstream(folder))
        ours = stack(folder, [upstream], model=given.model)
        servers = [running.enter_context(server) for server in (ours.server, *installed(folder, upstream))]
        ways = candidates(upstream, ours, servers[1:])
        for way in ways:
            measure(way, Load(20, 2, load.connections))  # first requests load modules
        samples = harness.interleave(
            {way.name: partial(measure, way, load) for way in ways}, given.rounds, progress=print
        )
        held = [
            standing(server, ours.pid("gateway") or 0 if server is ours.server else server.pid) for server in servers
        ]
    report(samples, held, given.json)


def report(samples: dict[str, list[Mapping[str, float]]], held: list[dict[str, object]], out: Path | None) -> None:
    """Print and save: medians, ratios to LiteLLM when it ran (else to ctxmem off), and what each proxy holds."""
    reference = "litellm" if "litellm" in samples else "ctxmem off"
    rows = harness.rows(samples, reference=reference)
    harness.show_rows("what a proxy adds", rows, reference=reference)
    harness.show("what it holds", list(held[0]), [[str(value) for value in row.values()] for row in held])
    harness.save(out, rows=rows, held=held, samples=samples)


if __name__ == "__main__":
    main()
