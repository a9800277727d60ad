"""ctxmem as a strategy: a real manager over a real SQLite file, asked for every request of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.strategies import Sent, Strategy
from bench.traces import Trace
from ctxmem import chat
from ctxmem.ledger import CacheTerms
from ctxmem.manager import Call, ContextManager, Prepared
from ctxmem.types import Budget


def through_ctxmem(policy: str, tokenizer: str, budget: Callable[[Trace], int | None], cache: CacheTerms) -> Strategy:
    """Every request goes through `ContextManager.build`, every answer of the trace through `answer`.

    Args:
        policy: which edits are allowed.
        tokenizer: the target model.
        budget: prompt tokens a request of a trace may take; None for the model's window.
        cache: the provider's terms.
    """

    def strategy(trace: Trace) -> Iterator[Sent]:
        with TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'bench.db'}"
            with closing(ContextManager(url, policy=policy)) as manager:
                limit = budget(trace)
                for _, prepared in replayed(manager, trace, model=tokenizer, limit=limit, cache=cache):
                    sent = tuple(message.raw or b"" for message in prepared.messages)
                    yield Sent(sent, epoch=prepared.receipt.action == "epoch")

    return strategy


def replayed(
    manager: ContextManager, trace: Trace, *, model: str, limit: int | None, cache: CacheTerms | None = None
) -> Iterator[tuple[int, Prepared]]:
    """What a manager sends for each request of a trace, and how many messages the client held; the answer comes after.

    Raises:
        BudgetError: what is pinned does not fit.
    """
    for depth in trace.turns():
        call = Call(
            tuple(chat.parse(raw) for raw in trace.messages[:depth]),
            model=model,
            session_id=trace.name.replace("/", "-"),
            tools=trace.tools,
            cache=cache or CacheTerms(),
            budget=Budget(limit) if limit else None,
        )
        prepared = manager.build(call)
        yield depth, prepared
        manager.answer(prepared.request_id, trace.messages[depth] if depth < len(trace.messages) else None)
