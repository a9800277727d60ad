"""`python -m bench.agents`: tasks of 1 to 16 objectives under every way to keep their context, with scripted agents.

What a task costs, how large its prompts get, and what can still be answered at its end. Agent and summariser are one
script for all (`bench/objectives/scripted.py`): it knows what stands in its prompt and nothing else, so the figures are
about the memory, not about a model. Prices are those of `bench/cachesim.py`; calls of a summariser are paid for too.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean

from bench.cachesim import FRAME, OPENAI, PrefixCache, Sizes
from bench.harness import save, show
from bench.objectives import managers, world
from bench.objectives.scripted import Agent
from ctxmem import chat
from ctxmem.agents.mem1 import Mem1Agent
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.ports import Counter
from ctxmem.tokens.resolve import counter_for
from ctxmem.types import Message

OUTPUT_PRICE = 5.0
"""Of an output token, in uncached input tokens."""

SECONDS = 10.0
"""Between two calls."""

MORE = 3
"""Turns that an agent may take beyond its searches; the cadence counts on those that are left."""

TRIGGER = 2000
"""Tokens past which the peers summarise: about the peak of MEM1 here."""


@dataclass(slots=True)
class Bill:
    """What the calls of one task cost.

    Attributes:
        cache: the provider's.
        counter: counts tokens.
        questions: of the task.
        own: tokens of the largest prompt without its rules and the questions in it, as the paper counts.
    """

    cache: PrefixCache
    counter: Counter
    questions: Sequence[str]
    peak: int = 0
    own: int = 0
    tokens: int = 0
    read: int = 0
    output: int = 0
    calls: int = 0
    cost: float = 0.0

    def pay(self, messages: Sequence[Message], answer: str, *, main: bool = True) -> None:
        """Note one call; only those of the agent itself count for the peak."""
        charge = self.cache.charge([message.raw or b"" for message in messages], self.calls * SECONDS)
        written = self.counter.texts([answer])[0]
        self.calls += 1
        self.tokens += charge.tokens
        self.read += charge.read
        self.output += written
        self.cost += charge.cost + OUTPUT_PRICE * written
        if main:
            self.peak = max(self.peak, charge.tokens)
            self.own = max(self.own, charge.tokens - self._given(messages))

    def _given(self, messages: Sequence[Message]) -> int:
        """Tokens of the rules, and of the questions that stand in a prompt."""
        text = "\n".join(message.text for message in messages[1:])
        asked = sum(self.cache.sizes.of(one.encode()) - FRAME for one in self.questions if one in text)
        return self.cache.sizes.of(messages[0].raw or b"") + asked


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one task went.

    Attributes:
        bill: what it cost.
        exact: objectives answered word for word.
        f1: sum of their F1.
        retained: share of the objectives that could be answered from the last prompt.
        hacked: whether an injected order was obeyed.
        degraded: updates that the agent's output spoiled.
    """

    bill: Bill
    exact: float
    f1: float
    retained: float
    hacked: bool
    degraded: int = 0


@dataclass(slots=True)
class Paying:
    """A model whose calls are paid for."""

    agent: Agent
    bill: Bill
    last: str = field(default="")

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        answer = "".join(self.agent.complete(messages, max_tokens=max_tokens))
        self.bill.pay(messages, answer)
        self.last = "\n".join(message.text for message in messages)
        yield answer


def scored(task: world.Task, given: Sequence[str]) -> tuple[float, float]:
    """Sums of EM and F1 over the objectives."""
    pairs = [(given[n] if n < len(given) else "", one.answer) for n, one in enumerate(task.objectives)]
    return sum(world.exact(*pair) for pair in pairs), sum(world.f1(*pair) for pair in pairs)


def with_mem1(task: world.Task, agent: Agent, counter: Counter, knobs: Knobs) -> Outcome:
    """The task done by the MEM1 agent."""
    paying = Paying(agent, _bill(counter, task))
    searches = sum(len(one.queries) for one in task.objectives)

    runner = Mem1Agent(paying, {"search": task.search}, counter, knobs=knobs, max_turns=searches + MORE)
    done = runner.run("Answer every question.", objectives=[one.question for one in task.objectives])
    exact, f1 = scored(task, done.answers)
    retained = agent.retained(paying.last)
    return Outcome(paying.bill, exact, f1, retained, agent.hacked, done.account.degraded)


def with_manager(task: world.Task, agent: Agent, counter: Counter, manager: managers.Manager) -> Outcome:
    """The task done by an agent that a manager shows its history."""
    bill = _bill(counter, task)

    def ask(text: str) -> str:
        answer = agent.summary(text)
        bill.pay([chat.build("user", text)], answer, main=False)
        return answer

    questions = "\n".join(f"({n}) {one.question}" for n, one in enumerate(task.objectives, 1))
    rules = Mem1Agent(None, {"search": task.search}, counter).rules.text  # the same for all
    history = [
        {"role": "system", "content": rules},
        {"role": "user", "content": f"Answer every question.\n{questions}"},
    ]
    new = list(history)
    while True:
        prompt = manager.show(history, new, ask)
        text = "\n".join(said["content"] for said in prompt)
        reply = agent.act(text)
        bill.pay([chat.build(said["role"], said["content"]) for said in prompt], reply)
        wanted = json.loads(reply)
        if "answer" in wanted:
            exact, f1 = scored(task, wanted["answer"])
            return Outcome(bill, exact, f1, agent.retained(text), agent.hacked)
        result = task.search(wanted["action"]["input"])
        new = [{"role": "assistant", "content": reply}, {"role": "user", "content": result}]
        history += new


Run = Callable[[world.Task, Agent, Counter], Outcome]


def ways(knobs: Knobs) -> dict[str, tuple[Run, bool]]:
    """Every way by name, and whether its memory is written anew each turn."""
    room = 2 * knobs.b_state  # here the questions are part of the goal, which may take half of it
    rewrite = Knobs(mode="rewrite", cadence="every_turn", b_state=room, b_obs=knobs.b_obs)

    def managed(manager: managers.Manager) -> tuple[Run, bool]:
        return (lambda task, agent, counter: with_manager(task, agent, counter, manager)), False

    found: dict[str, tuple[Run, bool]] = {
        "full history": managed(managers.Full()),
        "sliding window of 8": managed(managers.Window()),
    }
    if managers.peers_installed():
        found["LangChain SummarizationMiddleware"] = managed(managers.Peer("langchain", TRIGGER))
        found["langmem summarize_messages"] = managed(managers.Peer("langmem", TRIGGER))
    found["MEM1 rewrite, every turn"] = (lambda task, agent, counter: with_mem1(task, agent, counter, rewrite)), True
    found["MEM1 patch, auto"] = (lambda task, agent, counter: with_mem1(task, agent, counter, knobs)), False
    return found


def measure(run: Run, tasks: Sequence[world.Task], counter: Counter, **script: object) -> list[Outcome]:
    """Every task once."""
    return [run(task, Agent(task, random=Random(n), **script), counter) for n, task in enumerate(tasks)]  # type: ignore[arg-type]


def line(name: str, outcomes: Sequence[Outcome], full: Sequence[Outcome]) -> list[str]:
    """A row: means over the tasks."""
    bills = [one.bill for one in outcomes]
    direct = fmean(one.bill.cost for one in full)
    return [
        name,
        f"{fmean(bill.peak for bill in bills):.0f}",
        f"{fmean(bill.own for bill in bills):.0f}",
        f"{fmean(bill.read for bill in bills):.0f} + {fmean(bill.tokens - bill.read for bill in bills):.0f}",
        f"{fmean(bill.output for bill in bills):.0f}",
        f"{fmean(bill.cost for bill in bills) / direct:.2f}",
        f"{fmean(one.exact for one in outcomes):.2f}",
        f"{fmean(one.f1 for one in outcomes):.2f}",
        f"{fmean(one.retained for one in outcomes):.1%}",
        f"{fmean(one.hacked for one in outcomes):.0%}",
        f"{sum(one.degraded for one in outcomes)}",
    ]


HEADER = ("", "peak", "own", "input: cached + fresh", "output", "cost", "EM", "F1", "retained", "obeyed", "degraded")


def _bill(counter: Counter, task: world.Task) -> Bill:
    return Bill(PrefixCache(OPENAI, Sizes(counter)), counter, [one.question for one in task.objectives])


def main() -> None:
    """Run what is asked for and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the tasks' draw")
    parser.add_argument("--world", choices=["hotpot", "generated"], default="hotpot")
    parser.add_argument("--forgets", type=float, default=0.0)
    parser.add_argument("--breaks", type=float, default=0.0)
    parser.add_argument("--inject", action="store_true")
    parser.add_argument("--b-state", type=int, default=820)
    parser.add_argument("--cadence", default="auto")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CTXMEM_DATA") or "../shared/data"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    poison = world.INJECTION if asked.inject else ""
    made = world.hotpot(asked.data, poison) if asked.world == "hotpot" else world.generated(1, poison=poison)
    counter = counter_for("gpt-4o-mini")
    results: dict[str, object] = {}
    for size in asked.sizes:
        tasks = world.tasks(*made, size, asked.tasks, seed=asked.seed)
        rows, full = [], []
        for name, (run, rewrites) in ways(Knobs(b_state=asked.b_state, cadence=asked.cadence)).items():
            done = measure(run, tasks, counter, rewrites=rewrites, forgets=asked.forgets, breaks=asked.breaks)
            full = full or done
            rows.append(line(name, done, full))
        show(f"{size} objectives, {len(tasks)} tasks, {asked.world}", HEADER, rows)
        results[str(size)] = rows
    save(asked.json, sizes=results)


if __name__ == "__main__":
    main()
