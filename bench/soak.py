"""Minutes of steady load: does the gateway's memory grow, do connections, threads or files pile up?

    python -m bench.soak --minutes 30

The clients of `bench.crash` append and chat without pause, each session a few turns long. After a warm-up the gateway's
resident memory is sampled; its slope per 10,000 requests is a least-squares fit.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory

import psutil

from bench import harness
from bench.client import Client
from bench.crash import Writer, check
from bench.servers import scripted_upstream
from bench.stack import Stack, stack

WARM_UP = 0.2
"""Share of the time that is not sampled: pools, caches and the allocator fill up."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway at one moment.

    Attributes:
        acknowledged: messages the service had taken by then.
        rss_mb: resident memory.
        files: open files and sockets.
        threads: of the process.
    """

    acknowledged: int
    rss_mb: float
    files: int
    threads: int


def sample(gateway: psutil.Process, writers: Sequence[Writer]) -> Sample:
    """Look once."""
    taken = sum(len(messages) for writer in writers for messages in list(writer.acknowledged.values()))
    return Sample(taken, gateway.memory_info().rss / 2**20, gateway.num_fds(), gateway.num_threads())


def soak(
    service: Stack, *, minutes: float, clients: int, progress: Callable[[Sample], None]
) -> tuple[list[Sample], bool]:
    """Load the service for a while.

    Returns:
        The samples after the warm-up, and whether the log is clean at the end.
    """
    client, stop = Client(service.root, service.headers), threading.Event()
    writers = [Writer(f"soak-{n}", client, stop) for n in range(clients)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    gateway = psutil.Process(service.pid("gateway"))
    for thread in threads:
        thread.start()
    seconds, samples = 60 * minutes, []
    for _ in range(100):
        time.sleep(seconds / 100)
        samples.append(sample(gateway, writers))
        progress(samples[-1])
    stop.set()
    for thread in threads:
        thread.join()
    return samples[int(WARM_UP * len(samples)) :], check(client, writers).clean


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="ctxmem-soak-") as name, ExitStack() as running:
        service = stack(Path(name), [running.enter_context(scripted_upstream(Path(name)))])
        running.enter_context(service.server)
        samples, clean = soak(
            service, minutes=given.minutes, clients=given.clients, progress=lambda s: print(s, flush=True)
        )
    slope = linear_regression([s.acknowledged for s in samples], [s.rss_mb for s in samples]).slope * 10_000
    first, last = samples[0], samples[-1]
    print(f"{last.acknowledged} acknowledged messages in {given.minutes:g} minutes; log clean: {clean}")
    print(f"resident memory {first.rss_mb:.1f} -> {last.rss_mb:.1f} MB, {slope:+.2f} MB per 10,000 messages")
    print(f"files {first.files} -> {last.files}, threads {first.threads} -> {last.threads}")
    harness.save(given.json, slope_mb_per_10k=slope, clean=clean, samples=[asdict(s) for s in samples])
    sys.exit(not clean)


if __name__ == "__main__":
    main()
