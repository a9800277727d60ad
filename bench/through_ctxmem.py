"""ctxmem as a strategy: a real manager over a real SQLite file, asked for every request of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.strategies import Sent, Strategy
from bench.traces import Trace
from ctxmem import chat
from ctxmem.types import Budget


def through_ctxmem(policy: str, tokenizer: str, budget: int | None = None) -> Strategy:
    """Every request goes through `ContextManager.build`, every answer of the trace through `answer`.

    Args:
        policy: which edits are allowed.
        tokenizer: the target model.
        budget: prompt tokens a request may take; None for no limit.
    """
    from ctxmem.manager import Call, ContextManager

    def strategy(trace: Trace) -> Iterator[Sent]:
        with TemporaryDirectory() as folder:
            manager = ContextManager(f"sqlite:///{Path(folder) / 'bench.db'}", policy=policy)
            for depth in trace.turns():
                call = Call(
                    tuple(chat.parse(raw) for raw in trace.messages[:depth]),
                    model=tokenizer,
                    session_id=trace.name.replace("/", "-"),
                    tools=trace.tools,
                    budget=Budget(budget) if budget else None,
                )
                prepared = manager.build(call)
                manager.answer(prepared.request_id, trace.messages[depth] if depth < len(trace.messages) else None)
                sent = tuple(message.raw or b"" for message in prepared.messages)
                yield Sent(sent, epoch=prepared.receipt.action == "epoch")

    return strategy
