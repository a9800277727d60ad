"""What managing a context costs at a provider with a prefix cache, relative to sending everything.

    python -m bench.prompt_cache                      # synthetic long tool traces and all real sets
    python -m bench.prompt_cache --sets tau_bench --policies balanced --json out.json

Each trace is replayed request by request through every strategy; what it would send is priced by `bench.cachesim`.
Below 1.00 a strategy saves money; the bar for ctxmem is never above 1.00 on any trace.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from rich.progress import track

from bench import harness, strategies, synthetic, traces
from bench.cachesim import ANTHROPIC, OPENAI, PrefixCache, Sizes, Terms
from bench.strategies import Sent, Strategy
from bench.through_ctxmem import through_ctxmem
from bench.traces import Trace, TraceSet
from ctxmem.errors import BudgetError
from ctxmem.ledger import CacheTerms
from ctxmem.tokens.resolve import counter_for

TABLE_WINDOW, TABLE_HIGH, TABLE_LOW = 40_000, 60_000, 20_000
"""Tokens: the window and water marks the baselines use on the synthetic traces."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to replay and price.

    Attributes:
        tokenizer: model whose tokens are counted.
        policies: ctxmem policies to replay.
        share: ctxmem's budget as a share of each trace's final size; None for the model's window.
        gap_s: seconds between two requests of a trace.
    """

    tokenizer: str
    policies: tuple[str, ...]
    share: float | None
    gap_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trace under one strategy.

    Attributes:
        trace: its name.
        cost: input cost relative to direct.
        tokens: prompt tokens relative to direct.
        stable: mean share of a request's tokens with which the next one starts.
        epochs: compactions declared.
        busts: requests that moved their prefix without declaring one.
    """

    trace: str
    cost: float
    tokens: float
    stable: float
    epochs: int
    busts: int


@dataclass(frozen=True, slots=True)
class Pricing:
    """What one set is priced with.

    Attributes:
        sizes: tokens of messages.
        terms: the provider's.
        options: of the replay.
    """

    sizes: Sizes
    terms: Terms
    options: Options

    def bill(self, trace: Trace, sent: Sequence[Sent]) -> tuple[float, int]:
        """Cost in uncached input tokens, and tokens, of everything sent for a trace."""
        tools = (trace.tools,) if trace.tools else ()
        cache = PrefixCache(self.terms, self.sizes)
        charges = [cache.charge(tools + one.messages, n * self.options.gap_s) for n, one in enumerate(sent)]
        return sum(charge.cost for charge in charges), sum(charge.tokens for charge in charges)

    def compare(self, trace: Trace, strategy: Strategy) -> Outcome | None:
        """Replay a trace and set its bill against the direct one; None when a request cannot fit the budget."""
        try:
            sent = list(strategy(trace))
        except BudgetError:
            return None
        plain, paid = self.bill(trace, list(strategies.direct(trace))), self.bill(trace, sent)
        share, busts = strategies.stable(self.sizes, sent)
        epochs = sum(one.epoch for one in sent)
        return Outcome(trace.name, paid[0] / plain[0], paid[1] / plain[1], share, epochs, busts)


def candidates(pricing: Pricing, *, table: bool) -> dict[str, Strategy]:
    """The baselines and ctxmem's policies; `table` uses the fixed windows, else half of each trace's final size."""
    sizes, options = pricing.sizes, pricing.options
    window, high, low = (TABLE_WINDOW, TABLE_HIGH, TABLE_LOW) if table else (None, None, None)
    baselines: dict[str, Strategy] = {
        "rolling window": strategies.rolling(sizes, window),
        "re-summarise every turn": strategies.resummarise(sizes, window),
        "prune tool output when old": strategies.prune_when_old(),
        "epochs only, no gate": strategies.epochs(sizes, high, low),
        "cut on arrival to 30 %": strategies.cut_on_arrival(),
        "cut on arrival + epochs": strategies.arrival_and_epochs(sizes, high, low),
    }
    budget = partial(_budget, sizes, options.share)
    own = {
        f"ctxmem {name}": through_ctxmem(name, options.tokenizer, budget, cache_terms(pricing.terms))
        for name in options.policies
    }
    return baselines | own


def _budget(sizes: Sizes, share: float | None, trace: Trace) -> int | None:
    last = trace.messages[: trace.turns()[-1]]
    return None if share is None else int(share * sizes.total((trace.tools or b"", *last)))


def cache_terms(terms: Terms) -> CacheTerms:
    """The provider's terms, as ctxmem is told of them."""
    return CacheTerms(read=terms.read, write=terms.write, ttl=terms.ttl_s)


def run_set(group: TraceSet, pricing: Pricing, *, table: bool = False) -> dict[str, list[Outcome]]:
    """Every candidate over every trace of a set."""
    found = {}
    for name, strategy in candidates(pricing, table=table).items():
        work = track(group.traces, description=f"{group.name}, {pricing.terms.name}: {name}", transient=True)
        found[name] = [outcome for trace in work if (outcome := pricing.compare(trace, strategy))]
    return found


def line(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """One row of the table."""
    costs = [outcome.cost for outcome in outcomes]
    return [
        name,
        str(len(outcomes)),
        f"{median(costs):.2f}",
        f"{max(costs):.2f}",
        f"{sum(cost > 1.0 + 1e-9 for cost in costs) / len(costs):.0%}",
        f"{median(outcome.tokens for outcome in outcomes):.2f}",
        f"{median(outcome.stable for outcome in outcomes):.1%}",
        str(sum(outcome.epochs for outcome in outcomes)),
        str(sum(outcome.busts for outcome in outcomes)),
    ]


HEADER = ("strategy", "traces", "cost, median", "max", "> 1.00", "tokens", "stable prefix", "epochs", "busts by us")


def main() -> None:
    given = _arguments()
    options = Options(given.tokenizer, tuple(given.policies), given.share, given.gap)
    counter = counter_for(options.tokenizer)
    sizes = Sizes(counter)
    groups = [TraceSet(f"synthetic {n} turns", (synthetic.tool_trace(n),)) for n in given.turns]
    try:
        groups += [traces.load(name) for name in given.sets]
    except FileNotFoundError as error:
        sys.exit(str(error))
    results: dict[str, dict[str, list[Outcome]]] = {}
    for group in groups:
        for terms in (OPENAI, ANTHROPIC):
            pricing = Pricing(sizes, replace(terms, minimum=given.minimum), options)
            found = run_set(group, pricing, table=group.name.startswith("synthetic"))
            title = f"{group.name}: {len(group.traces)} traces, {terms.name} terms, tokens of {counter.name}"
            harness.show(title, HEADER, [line(name, outcomes) for name, outcomes in found.items() if outcomes])
            results[f"{group.name}, {terms.name}"] = found
    harness.save(given.json, options=asdict(options), tokenizer=counter.name, exact=counter.exact, results=results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["tau_bench", "swe_agent", "webdancer"], choices=list(traces.SETS))
    parser.add_argument("--turns", nargs="*", type=int, default=[30, 100, 300], help="lengths of the synthetic traces")
    parser.add_argument("--policies", nargs="*", default=["none", "balanced"])
    parser.add_argument("--tokenizer", default="gpt-4o", help="model whose tokens are counted")
    parser.add_argument("--share", type=float, help="ctxmem's budget as a share of each trace's final size")
    parser.add_argument("--gap", type=float, default=20.0, help="seconds between two requests")
    parser.add_argument("--minimum", type=int, default=0, help="shortest prompt a provider caches, in tokens")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
