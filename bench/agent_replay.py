"""`python -m bench.agent_replay`: recorded agents through the middleware, in part of their final size.

tau-bench, SWE-agent and WebDancer. Of each request that is sent: does every tool result follow its call, and has every
call its results; and the values in the calls that the agent made next which had been said before: do they stand in what
was sent word for word, or in what `recall` gives for the newest message, or restore from the log. A value is a leaf of
a call's arguments of three characters or more; of a call written as text its numbers, addresses, paths and quotations.
No language model is asked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import harness, traces
from bench.cachesim import OPENAI, PrefixCache, Sizes
from bench.through_ctxmem import replayed
from bench.traces import Trace
from ctxmem import chat
from ctxmem.agents.actions import read
from ctxmem.compressors.pencil.check import loose
from ctxmem.errors import BudgetError
from ctxmem.manager import ContextManager, Prepared
from ctxmem.tokens.resolve import counter_for
from ctxmem.types import Message

SETS = ("tau_bench", "swe_agent", "webdancer")
HITS = 5
SHORTEST = 3


@dataclass(slots=True)
class Tally:
    """What one policy made of one set.

    Attributes:
        requests: sent.
        refused: traces that ended because what is pinned did not fit.
        broken: pairs of calls and results that are not whole.
        values: of later calls that had been said before.
        present: of these, in what was sent.
        recalled: of these, in what was sent or what recall gave for the newest message.
        restored: of these, in what was sent or what the receipt's items restore to.
        tokens: sent.
        tokens_full: of the whole history.
        cost: of what was sent, in uncached input tokens under a prefix cache.
        cost_full: of the whole history.
    """

    requests: int = 0
    refused: int = 0
    broken: int = 0
    values: int = 0
    present: int = 0
    recalled: int = 0
    restored: int = 0
    tokens: int = 0
    tokens_full: int = 0
    cost: float = 0.0
    cost_full: float = 0.0

    def add(self, other: Tally) -> None:
        """Take another one's numbers."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


def broken_pairs(messages: Sequence[Message]) -> int:
    """Calls without their one result right after them, and results without their call."""
    wrong, waiting = 0, dict[str, None]()
    for message in messages:
        answered = [id for id in (message.tool_call_id, *message.answers) if id is not None]
        for id in answered:
            wrong += id not in waiting
            waiting.pop(id, None)
        if message.tool_call_ids or not answered:
            wrong += len(waiting)
            waiting = dict.fromkeys(message.tool_call_ids)
    return wrong + len(waiting)


def values(message: Message) -> list[str]:
    """The values in the calls of an answer, each once."""
    body = chat.decode(message.raw or b"{}")
    actions = [one for call in body.get("tool_calls") or [] for one in read(json.dumps([call]))]
    found = [leaf for one in actions or read(message.text) if one.tool != "answer" for leaf in _leaves(one.arguments)]
    found = found or list(loose(message.text, []))
    return [value for value in dict.fromkeys(found) if len(value) >= SHORTEST]


def replay(trace: Trace, policy: str, model: str, sizes: Sizes, share: float) -> Tally:
    """One recorded conversation under one policy."""
    tally, tools = Tally(), (trace.tools,) if trace.tools else ()
    last = trace.messages[: trace.turns()[-1]]
    ours, full = PrefixCache(OPENAI, sizes), PrefixCache(OPENAI, sizes)
    with (
        TemporaryDirectory() as folder,
        closing(ContextManager(f"sqlite:///{folder}/log.db", policy=policy)) as manager,
    ):
        limit = int(share * sizes.total((*tools, *last)))
        try:
            for depth, prepared in replayed(manager, trace, model=model, limit=limit):
                sent = tuple(message.raw or b"" for message in prepared.messages)
                before = trace.messages[:depth]
                for cache, messages, kind in ((ours, sent, ""), (full, before, "_full")):
                    charge = cache.charge(tools + messages, 20.0 * tally.requests)
                    setattr(tally, f"tokens{kind}", getattr(tally, f"tokens{kind}") + charge.tokens)
                    setattr(tally, f"cost{kind}", getattr(tally, f"cost{kind}") + charge.cost)
                tally.requests += 1
                tally.broken += broken_pairs(prepared.messages)
                if depth < len(trace.messages):
                    said = _plain([chat.parse(raw) for raw in before])
                    wanted = [value for value in values(chat.parse(trace.messages[depth])) if value in said]
                    _look(tally, manager, prepared, wanted)
        except BudgetError:
            tally.refused += 1
    return tally


def _look(tally: Tally, manager: ContextManager, prepared: Prepared, wanted: Sequence[str]) -> None:
    """Where the values are found."""
    sent = _plain(prepared.messages)
    missing = [value for value in wanted if value not in sent]
    tally.values += len(wanted)
    tally.present += len(wanted) - len(missing)
    found = restored = ""
    if missing:
        asked = prepared.messages[-1].text[:2000]
        found = "\n".join(hit.text for hit in manager.session(prepared.session_id).scopes.recall(asked, HITS))
        items = manager.receipt(prepared.request_id).items
        restored = _plain([chat.parse(manager.original(item.item_id)) for item in items])
    tally.recalled += len(wanted) - sum(value not in found for value in missing)
    tally.restored += len(wanted) - sum(value not in restored for value in missing)


def _plain(messages: Sequence[Message]) -> str:
    """All that stands in messages, calls included, without JSON's escapes of a second level."""
    return "\n".join([*(m.text for m in messages), *((m.raw or b"").decode().replace('\\"', '"') for m in messages)])


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif value is not None and not isinstance(value, bool):
        yield str(value).strip()


def row(policy: str, tally: Tally) -> list[str]:
    """A line of the table."""
    shares = (f"{part / max(1, tally.values):.1%}" for part in (tally.present, tally.recalled, tally.restored))
    tokens, cost = tally.tokens / max(1, tally.tokens_full), tally.cost / max(1.0, tally.cost_full)
    counts = (tally.requests, tally.refused, tally.broken, tally.values)
    return [policy, *map(str, counts), *shares, f"{tokens:.2f}", f"{cost:.2f}"]


HEADER = (
    "policy",
    "requests",
    "refused",
    "broken pairs",
    "values",
    "sent",
    "or recalled",
    "or restored",
    "tokens",
    "cost",
)


def main() -> None:
    """Run what is asked for and print a table for each set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--policies", nargs="+", default=["none", "balanced", "mem1", "pencil"])
    parser.add_argument("--share", type=float, default=0.7, help="budget as a share of each trace's final size")
    parser.add_argument("--traces", type=int, help="of each set")
    parser.add_argument("--data", type=Path, default=traces.data_root())
    parser.add_argument("--tokenizer", default="gpt-4o")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    sizes = Sizes(counter_for(asked.tokenizer))
    results: dict[str, object] = {}
    for name in asked.sets:
        group, rows = traces.load(name, root=asked.data), []
        for policy in asked.policies:
            total = Tally()
            for trace in group.traces[: asked.traces]:
                total.add(replay(trace, policy, asked.tokenizer, sizes, asked.share))
            rows.append(row(policy, total))
            print(rows[-1], flush=True)
        harness.show(f"{name}: {len(group.traces[: asked.traces])} traces", HEADER, rows)
        results[name] = rows
    harness.save(asked.json, share=asked.share, results=results)


if __name__ == "__main__":
    main()
