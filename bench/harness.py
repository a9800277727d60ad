"""Same-run ratios: candidates take turns, round after round, and the medians are compared.

A loaded machine makes absolute times worthless, so a bench here reports each candidate's median next to the ratio
to one of them, with the command line that made it. Costs are read from the operating system: CPU seconds of a whole
process tree, children that have exited included, and the highest resident size each process reached.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: benches start the service from here."""

WIDTH = 132
"""Columns of a printed table, the same in a terminal, a file and a log."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity of one candidate.

    Attributes:
        candidate: what was measured.
        quantity: what of it, with its unit.
        median: over the rounds.
        low: smallest round.
        high: largest round.
        ratio: this median divided by the reference's; None when the reference has none or is 0.
    """

    candidate: str
    quantity: str
    median: float
    low: float
    high: float
    ratio: float | None = None


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its living descendants; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process tree so far. What exited children used stands in their parent's account."""
    return sum(_own_and_reaped(process) for process in tree(pid))


def peak_rss(pid: int) -> int:
    """Bytes: the sum over the tree's living processes of the highest resident size each reached."""
    return sum(own_peak_rss(process.pid) for process in tree(pid))


def own_peak_rss(pid: int) -> int:
    """Bytes: the highest resident size the process reached; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) * 1024


def interleave(
    candidates: Mapping[str, Callable[[], Mapping[str, float]]],
    rounds: int,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Mapping[str, float]]]:
    """Run every candidate once per round, starting each round with another one.

    Args:
        candidates: by name, what measures it once: quantity to value.
        rounds: how many times.
        progress: told what runs now.
    """
    names = list(candidates)
    samples: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            progress(f"round {number + 1}/{rounds}: {name}")
            samples[name].append(candidates[name]())
    return samples


def rows(samples: Mapping[str, Sequence[Mapping[str, float]]], *, reference: str) -> list[Row]:
    """Medians over the rounds, each with its ratio to the reference candidate's."""
    quantities = list(dict.fromkeys(key for rounds in samples.values() for sample in rounds for key in sample))
    found = [_row(name, key, rounds) for key in quantities for name, rounds in samples.items()]
    scale = {row.quantity: row.median for row in found if row is not None and row.candidate == reference}
    return [_against(row, scale.get(row.quantity)) for row in found if row is not None]


def show(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column left, figures right."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    Console(width=WIDTH, safe_box=True, color_system="auto").print(table)


def show_rows(title: str, measured: Sequence[Row], *, reference: str) -> None:
    """Print measured rows, the reference's ratio being 1."""
    header = ("quantity", "candidate", "median", "low", "high", f"ratio to {reference}")
    lines = [
        (row.quantity, row.candidate, figure(row.median), figure(row.low), figure(row.high), figure(row.ratio))
        for row in measured
    ]
    show(title, header, lines)


def figure(value: float | None) -> str:
    """A number with three significant digits; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def save(path: Path | None, **results: object) -> None:
    """Write results as JSON, with the command line, the time and the machine's cores; nothing when there is no path."""
    if path is None:
        return
    made = {"command": shlex.join(sys.orig_argv), "at": datetime.now(UTC).isoformat(), "cores": psutil.cpu_count()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**made, **results}, indent=1, default=asdict) + "\n")


def _row(name: str, quantity: str, rounds: Sequence[Mapping[str, float]]) -> Row | None:
    values = [sample[quantity] for sample in rounds if quantity in sample]
    return Row(name, quantity, median(values), min(values), max(values)) if values else None


def _against(row: Row, scale: float | None) -> Row:
    ratio = row.median / scale if scale else None
    return Row(row.candidate, row.quantity, row.median, row.low, row.high, ratio)


def _own_and_reaped(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
