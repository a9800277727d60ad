"""What managing a context costs at a provider with a prefix cache, relative to sending everything.

    python -m bench.prompt_cache                      # synthetic long tool traces and all real sets
    python -m bench.prompt_cache --sets tau_bench --policies balanced --json out.json

Each trace is replayed request by request through every strategy; what it would send is priced by `bench.cachesim`.
Below 1.00 a strategy saves money; the bar for ctxmem is never above 1.00 on any trace.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.progress import track

from bench import harness, strategies, synthetic, traces
from bench.cachesim import ANTHROPIC, OPENAI, PrefixCache, Sizes, Terms
from bench.strategies import Sent, Strategy
from bench.through_ctxmem import through_ctxmem
from bench.traces import Trace, TraceSet
from ctxmem.tokens.resolve import counter_for

TABLE_WINDOW, TABLE_HIGH, TABLE_LOW = 40_000, 60_000, 20_000
"""Tokens: the window and water marks the baselines use on the synthetic traces."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to replay and price.

    Attributes:
        tokenizer: model whose tokens are counted.
        policies: ctxmem policies to replay.
        budget: prompt tokens ctxmem may use; None for no limit.
        gap_s: seconds between two requests of a trace.
        terms: providers to price for.
    """

    tokenizer: str
    policies: tuple[str, ...]
    budget: int | None
    gap_s: float
    terms: tuple[Terms, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trace under one strategy.

    Attributes:
        trace: its name.
        costs: by provider, input cost relative to direct.
        tokens: prompt tokens relative to direct.
        stable: mean share of a request's tokens with which the next one starts.
        epochs: compactions declared.
        busts: requests that moved their prefix without declaring one.
    """

    trace: str
    costs: Mapping[str, float]
    tokens: float
    stable: float
    epochs: int
    busts: int


@dataclass(frozen=True, slots=True)
class Bill:
    """What all requests of a trace cost.

    Attributes:
        costs: by provider, in uncached input tokens.
        tokens: prompt tokens.
    """

    costs: Mapping[str, float]
    tokens: int


def bill(trace: Trace, sent: Sequence[Sent], sizes: Sizes, options: Options) -> Bill:
    """Price what was sent."""
    tools = (trace.tools,) if trace.tools else ()
    costs = {}
    for terms in options.terms:
        cache = PrefixCache(terms, sizes)
        costs[terms.name] = sum(
            cache.charge(tools + one.messages, n * options.gap_s).cost for n, one in enumerate(sent)
        )
    return Bill(costs, sum(sizes.total(tools + one.messages) for one in sent))


def compare(trace: Trace, strategy: Strategy, sizes: Sizes, options: Options) -> Outcome:
    """Replay a trace and set its bill against the direct one."""
    plain = bill(trace, list(strategies.direct(trace)), sizes, options)
    sent = list(strategy(trace))
    paid = bill(trace, sent, sizes, options)
    share, busts = strategies.stable(sizes, sent)
    costs = {name: cost / plain.costs[name] for name, cost in paid.costs.items()}
    return Outcome(trace.name, costs, paid.tokens / plain.tokens, share, sum(one.epoch for one in sent), busts)


def candidates(sizes: Sizes, options: Options, *, table: bool) -> dict[str, Strategy]:
    """The baselines and ctxmem's policies; `table` uses the fixed windows, else half of each trace's final size."""
    window, high, low = (TABLE_WINDOW, TABLE_HIGH, TABLE_LOW) if table else (None, None, None)
    baselines: dict[str, Strategy] = {
        "rolling window": strategies.rolling(sizes, window),
        "re-summarise every turn": strategies.resummarise(sizes, window),
        "prune tool output when old": strategies.prune_when_old(),
        "epochs only, no gate": strategies.epochs(sizes, high, low),
        "cut on arrival to 30 %": strategies.cut_on_arrival(),
        "cut on arrival + epochs": strategies.arrival_and_epochs(sizes, high, low),
    }
    own = {f"ctxmem {name}": through_ctxmem(name, options.tokenizer, options.budget) for name in options.policies}
    return baselines | own


def run_set(group: TraceSet, sizes: Sizes, options: Options, *, table: bool = False) -> dict[str, list[Outcome]]:
    """Every candidate over every trace of a set."""
    found = {}
    for name, strategy in candidates(sizes, options, table=table).items():
        work = track(group.traces, description=f"{group.name}: {name}", transient=True)
        found[name] = [compare(trace, strategy, sizes, options) for trace in work]
    return found


def line(name: str, outcomes: Sequence[Outcome], provider: Terms) -> list[str]:
    """One row of the table."""
    costs = [outcome.costs[provider.name] for outcome in outcomes]
    middle: Callable[[str], float] = lambda field: median(getattr(outcome, field) for outcome in outcomes)  # noqa: E731
    return [
        name,
        f"{median(costs):.2f}",
        f"{max(costs):.2f}",
        f"{sum(cost > 1.0 + 1e-9 for cost in costs) / len(costs):.0%}",
        f"{middle('tokens'):.2f}",
        f"{middle('stable'):.1%}",
        str(sum(outcome.epochs for outcome in outcomes)),
        str(sum(outcome.busts for outcome in outcomes)),
    ]


HEADER = ("strategy", "cost, median", "max", "> 1.00", "tokens", "stable prefix", "epochs", "busts by us")


def main() -> None:
    options, sets, turns, out = _arguments()
    counter = counter_for(options.tokenizer)
    sizes = Sizes(counter)
    groups = [TraceSet(f"synthetic {n} turns", (synthetic.tool_trace(n),)) for n in turns]
    groups += [traces.load(name) for name in sets]
    results: dict[str, dict[str, list[Outcome]]] = {}
    for group in groups:
        results[group.name] = found = run_set(group, sizes, options, table=group.name.startswith("synthetic"))
        for provider in options.terms:
            title = f"{group.name}: {len(group.traces)} traces, {provider.name} terms, tokens of {counter.name}"
            harness.show(title, HEADER, [line(name, outcomes, provider) for name, outcomes in found.items()])
    harness.save(out, options=asdict(options), tokenizer=counter.name, exact=counter.exact, results=results)


def _arguments() -> tuple[Options, list[str], list[int], Path | None]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["tau_bench", "swe_agent", "webdancer"], choices=list(traces.SETS))
    parser.add_argument("--turns", nargs="*", type=int, default=[30, 100, 300], help="lengths of the synthetic traces")
    parser.add_argument("--policies", nargs="*", default=["none", "balanced"])
    parser.add_argument("--tokenizer", default="gpt-4o", help="model whose tokens are counted")
    parser.add_argument("--budget", type=int, help="prompt tokens ctxmem may use")
    parser.add_argument("--gap", type=float, default=20.0, help="seconds between two requests")
    parser.add_argument("--minimum", type=int, default=0, help="shortest prompt a provider caches, in tokens")
    parser.add_argument("--json", type=Path, help="write the results here")
    given = parser.parse_args()
    terms = tuple(Terms(t.name, t.read, t.write, t.ttl_s, given.minimum) for t in (OPENAI, ANTHROPIC))
    options = Options(given.tokenizer, tuple(given.policies), given.budget, given.gap, terms)
    return options, given.sets, given.turns, given.json


if __name__ == "__main__":
    main()
