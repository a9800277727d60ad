"""Ways to manage a context, to be priced: the client's own requests, the usual baselines, and ctxmem.

A strategy gets a trace and yields what it would send for each of the trace's requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.cachesim import Sizes
from bench.traces import Trace
from ctxmem import chat


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as it goes to the provider.

    Attributes:
        messages: the JSON of each message.
        epoch: whether the strategy says it compacted the history here.
    """

    messages: tuple[bytes, ...]
    epoch: bool = False


Strategy = Callable[[Trace], Iterator[Sent]]


def direct(trace: Trace) -> Iterator[Sent]:
    """Everything, as the client sent it."""
    for depth in trace.turns():
        yield Sent(trace.messages[:depth])


def rolling(sizes: Sizes, window: int | None = None) -> Strategy:
    """The instructions and the newest messages that fit the window (tokens), which slides every turn."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        room = window or _half(sizes, trace)
        for depth in trace.turns():
            head = _head(trace)
            start = _newest(sizes, trace, (head, depth), room)
            yield Sent(trace.messages[:head] + trace.messages[start:depth])

    return strategy


def resummarise(sizes: Sizes, window: int | None = None) -> Strategy:
    """Past the window, what is older than its newer half becomes one summary, written anew every turn."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        room = window or _half(sizes, trace)
        for depth in trace.turns():
            head = _head(trace)
            whole = trace.messages[:depth]
            if sizes.total(whole) <= room // 2:
                yield Sent(whole)
                continue
            start = _newest(sizes, trace, (head, depth), room // 2)
            gist = " / ".join(sizes.text(raw)[:200] for raw in trace.messages[head:start])
            summary = chat.build("user", f"Summary of {start - head} messages: {gist}").raw or b""
            yield Sent((*trace.messages[:head], summary, *trace.messages[start:depth]))

    return strategy


def prune_when_old(keep: int = 5) -> Strategy:
    """Tool results, and long texts in their stead, older than the newest `keep` are replaced by a note."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        for depth in trace.turns():
            results = [n for n in range(depth) if _is_result(trace, n)]
            old = set(results[:-keep])
            yield Sent(tuple(_cut(raw, 0.0) if n in old else raw for n, raw in enumerate(trace.messages[:depth])))

    return strategy


def epochs(sizes: Sizes, high: int | None = None, low: int | None = None) -> Strategy:
    """At `high` tokens the oldest messages go until `low` are left; nothing moves in between. No gain gate."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        top = high or _half(sizes, trace)
        bottom = low or top // 3
        head = start = _head(trace)
        for depth in trace.turns():
            full = sizes.total((*trace.messages[:head], *trace.messages[start:depth])) > top
            start = _newest(sizes, trace, (start, depth), bottom) if full else start
            yield Sent(trace.messages[:head] + trace.messages[start:depth], epoch=full)

    return strategy


def cut_on_arrival(share: float = 0.3) -> Strategy:
    """Every tool result is cut to a share of its length when it first comes, and stays so."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        cut = tuple(_cut(raw, share) if _is_result(trace, n) else raw for n, raw in enumerate(trace.messages))
        for depth in trace.turns():
            yield Sent(cut[:depth])

    return strategy


def arrival_and_epochs(sizes: Sizes, high: int | None = None, low: int | None = None, share: float = 0.3) -> Strategy:
    """Both: cut when it comes, compact at the high-water mark."""

    def strategy(trace: Trace) -> Iterator[Sent]:
        cut = tuple(_cut(raw, share) if _is_result(trace, n) else raw for n, raw in enumerate(trace.messages))
        yield from epochs(sizes, high, low)(Trace(trace.name, cut, trace.roles, trace.tools))

    return strategy


def stable(sizes: Sizes, sent: Sequence[Sent]) -> tuple[float, int]:
    """How prefix-stable a sequence of requests is.

    Returns:
        The mean share of a request's tokens with which the next one starts, and how many requests did not start with
        all of the one before although no epoch was declared.
    """
    shares, ours = [], 0
    for before, after in pairwise(sent):
        same = _shared(sizes, before.messages, after.messages)
        total = sizes.total(before.messages)
        shares.append(same / total)
        ours += same < total and not after.epoch
    return sum(shares) / len(shares) if shares else 1.0, ours


def _shared(sizes: Sizes, before: Sequence[bytes], after: Sequence[bytes]) -> int:
    tokens = 0
    for old, new in zip(before, after, strict=False):
        tokens += sizes.shared(old, new)
        if old != new:
            return tokens
    return tokens


def _head(trace: Trace) -> int:
    return next((n for n, role in enumerate(trace.roles) if role not in chat.SYSTEM_ROLES), 0)


def _half(sizes: Sizes, trace: Trace) -> int:
    return sizes.total(trace.messages[: trace.turns()[-1]]) // 2


def _newest(sizes: Sizes, trace: Trace, span: tuple[int, int], room: int) -> int:
    """Where the newest messages that fit begin. A tool's answer is not parted from its call."""
    head, depth = span
    left = room - sizes.total(trace.messages[: _head(trace)])
    start = depth
    while start > head and (left := left - sizes.of(trace.messages[start - 1])) >= 0:
        start -= 1
    while start < depth - 1 and trace.roles[start] == "tool":
        start += 1
    return min(start, depth - 1)


def _is_result(trace: Trace, number: int) -> bool:
    """Tool messages; user messages that carry a tool's answer as text count too, the newest question does not."""
    raw = trace.messages[number]
    return trace.roles[number] == "tool" or (trace.roles[number] == "user" and number > 1 and len(raw) > 2000)


def _cut(raw: bytes, share: float) -> bytes:
    message = chat.parse(raw)
    texts = [part.text[: int(len(part.text) * share)] + " [cut]" for part in message.parts]
    return chat.edit(message, texts).raw or b""
