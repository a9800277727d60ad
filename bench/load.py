"""A load client in its own process: `python -m bench.load URL --requests N`; prints what it saw as JSON.

A fixed number of requests over a fixed number of kept-alive connections, each with its own question, so that no proxy
can answer from a cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bench.upstream import MODEL


def body(number: int, *, events: int) -> bytes:
    """One small request; streamed when it asks for events."""
    wire: dict[str, Any] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You answer in a few words."},
            {
                "role": "user",
                "content": f"Question {time.time_ns()}-{number}: what stands out about shipment {number}?",
            },
        ],
    }
    wire |= {"stream": True, "max_tokens": events} if events else {}
    return json.dumps(wire, separators=(",", ":")).encode()


@dataclass(slots=True)
class Seen:
    """What came back.

    Attributes:
        ok: answers that were whole.
        failed: answers that were not.
        events: content events.
        laps: seconds to the end of each whole answer.
    """

    ok: int = 0
    failed: int = 0
    events: int = 0
    laps: list[float] = field(default_factory=list)


def attack(url: str, *, requests: int, connections: int, events: int, headers: Mapping[str, str]) -> Seen:
    """Send the requests, each connection sending its share one after the other."""
    shares = [range(first, requests, connections) for first in range(connections)]
    with ThreadPoolExecutor(connections) as lanes:
        found = list(lanes.map(lambda share: _lane(url, share, events, headers), shares))
    laps = [lap for seen in found for lap in seen.laps]
    return Seen(sum(s.ok for s in found), sum(s.failed for s in found), sum(s.events for s in found), laps)


def _lane(url: str, numbers: Iterable[int], events: int, headers: Mapping[str, str]) -> Seen:
    where = urlsplit(url)
    connection = HTTPConnection(where.netloc, timeout=60)
    seen = Seen()
    for number in numbers:
        start = time.perf_counter()
        sent = {"content-type": "application/json", **headers}
        connection.request("POST", f"{where.path}/chat/completions", body(number, events=events), sent)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200 or text.count(b'" word') != events:
            print(f"status {answer.status}: {text[:300]!r}", file=sys.stderr)
            seen.failed += 1
            continue
        seen.ok += 1
        seen.events += events
        seen.laps.append(time.perf_counter() - start)
    connection.close()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="base URL up to and with /v1")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--events", type=int, default=0, help="content events per streamed answer; 0 for no stream")
    parser.add_argument("--headers", type=json.loads, default={}, help="JSON object of request headers")
    given = parser.parse_args()
    loopback = given.url.startswith("http://127.0.0.1:")
    if not loopback:
        parser.error("the load goes to 127.0.0.1 only")
    start = time.perf_counter()
    seen = attack(
        given.url,
        requests=given.requests,
        connections=given.connections,
        events=given.events,
        headers=given.headers,
    )
    seconds = time.perf_counter() - start
    p50_ms = round(1000 * median(seen.laps), 3) if seen.laps else None
    print(
        json.dumps({"ok": seen.ok, "failed": seen.failed, "events": seen.events, "seconds": seconds, "p50_ms": p50_ms})
    )


if __name__ == "__main__":
    main()
