"""From operations to changes of the log: ids given, sources found, texts made harmless, and the bound kept.

What the model wants is a wish: goal and pins are out of its reach, a patch that would empty the state is refused, and
whatever it writes, the rendering that results is within the bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ctxmem.compressors.mem1.log import Change, after
from ctxmem.compressors.mem1.ops import Op
from ctxmem.compressors.mem1.state import WEIGHTS, Item, State, clean, cut, flags_of, item_json
from ctxmem.compressors.words import stop
from ctxmem.ports import Counter

_WORD = re.compile(r"\w[\w.@/:'-]*\w|\w")
_HARD = re.compile(r"https?://\S+|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]+|\"[^\"]{2,80}\"|(?<![\w.])[#$€£]?\d[\d.,:%-]*\w*")
MOST_SOURCES = 8


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the task, as the state's sources know it.

    Attributes:
        id: event id, the handle that recalls it.
        role: user, assistant, tool or obs; answer for what a subtask came to.
        text: what was said.
        at: position in the session, from 0.
    """

    id: str
    role: str
    text: str
    at: int = 0


def patch(
    state: State, ops: Iterable[Op], turns: Sequence[Turn], count: Counter, *, by: str, covers: int = 0
) -> tuple[Change, ...]:
    """The changes that operations make of a state: a patch, then evictions if it went over its bound.

    Args:
        state: what is.
        ops: what the model, or the extractive updater, asks for.
        turns: what they were made from; an item's sources are among them.
        count: the target model's counter.
        by: which rung of the ladder read the operations.
        covers: position up to which the session is consolidated by this.
    """
    draft = _Draft(state, turns, count)
    for op in ops:
        draft.take(op)
    draft.keep_something()
    payload = {
        "by": by,
        "items": [item_json(item) for item in draft.changed.values()],
        "gone": sorted(draft.gone),
        "covers": covers,
    }
    return within(state, Change("patch", payload), count)


def rewrite(
    state: State, texts: Sequence[str], turns: Sequence[Turn], count: Counter, *, by: str, covers: int = 0
) -> tuple[Change, ...]:
    """The changes that a whole new state makes, as the paper's <IS>: every item is new; nothing else is kept."""
    draft = _Draft(replace(state, items=()), turns, count)
    for text in texts:
        draft.take(Op("add", "facts", text=text))
    known = {(item.sec, item.text): item.src for item in state.items}
    items = [replace(i, src=known.get((i.sec, i.text), i.src)) for i in draft.changed.values()]
    payload = {"by": by, "items": [item_json(item) for item in items], "covers": covers}
    return within(state, Change("rewrite", payload), count)


def within(state: State, change: Change, count: Counter) -> tuple[Change, ...]:
    """The change with its token count, and the eviction that keeps the state under its bound."""
    moved = after(state, change.kind, {**change.payload, "tokens": 0})
    tokens = count.texts([moved.text()])[0]
    counted = Change(change.kind, {**change.payload, "tokens": tokens})
    if tokens <= moved.bound:
        return (counted,)
    return (counted, _eviction(replace(moved, tokens=tokens), count))


def _eviction(state: State, count: Counter) -> Change:
    """Leave out the least: by priority, then section, then last use; as few as the bound asks for."""
    order = sorted(state.items, key=lambda i: (i.prio, WEIGHTS[i.sec], i.seen, int(i.id[1:])))
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        fits = _without(state, order[:middle], count) <= state.bound
        low, high = (low, middle) if fits else (middle + 1, high)
    gone = order[:low]
    payload = {
        "gone": [item.id for item in gone],
        "recall": {item.id: list(item.src) for item in gone},
        "tokens": _without(state, gone, count),
    }
    return Change("evict", payload)


def _without(state: State, gone: Sequence[Item], count: Counter) -> int:
    ids = {item.id for item in gone}
    rest = replace(state, items=tuple(i for i in state.items if i.id not in ids), evicted=state.evicted + len(gone))
    return count.texts([rest.text()])[0]


class _Draft:
    """A patch in the making."""

    def __init__(self, state: State, turns: Sequence[Turn], count: Counter) -> None:
        self.state = state
        self.changed: dict[str, Item] = {}
        self.gone: set[str] = set()
        self._turns = turns
        self._words = [(turn, words(turn.text)) for turn in turns]
        self._all = " ".join(turn.text for turn in turns)
        self._limit = max(8, state.bound // 4 - 16)
        self._count = count
        self._now = state.version + 1
        self._last = state.last
        self._said = {_folded(item.text): item for item in state.items}

    def take(self, op: Op) -> None:
        """One operation; what names no item is ignored."""
        known = self.changed.get(op.id) or self.state.by_id.get(op.id)
        if op.op == "del":
            if known is not None:
                self.gone.add(known.id)
        elif op.op == "set" and known is not None:
            self._set(known, op)
        elif op.text:
            self._add(op)

    def keep_something(self) -> None:
        """A state with items is never left without any."""
        if self.state.items and not self.changed and self.gone >= self.state.by_id.keys():
            self.gone.clear()

    def _add(self, op: Op) -> None:
        text, cuts = self._text(op.text)
        if not text:
            return
        same = self._said.get(_folded(text))
        if same is not None and same.id not in self.gone:
            item = self.changed.get(same.id, same)
            src = _merged(item.src, self._sources(text, op.src))
            self.changed[same.id] = replace(item, seen=self._now, src=src, prio=max(item.prio, op.prio or 0))
            return
        self._last += 1
        item = Item(
            id=f"i{self._last}",
            sec=op.sec or "facts",
            text=text,
            prio=op.prio or 0,
            src=self._sources(text, op.src),
            added=self._now,
            seen=self._now,
            flags=(*flags_of(text), *cuts, *self._unverified(text)),
        )
        self.changed[item.id] = self._said[_folded(text)] = item

    def _set(self, known: Item, op: Op) -> None:
        text, cuts = self._text(op.text)
        fresh = bool(text) and text != known.text
        text = text or known.text
        item = replace(
            known,
            sec=op.sec or known.sec,
            text=text,
            prio=known.prio if op.prio is None else op.prio,
            src=_merged(known.src, self._sources(text, op.src)) if fresh else known.src,
            seen=self._now,
            flags=(*flags_of(text), *cuts, *self._unverified(f"{text} ", known.text)) if fresh else known.flags,
        )
        self.gone.discard(item.id)
        self.changed[item.id] = self._said[_folded(text)] = item

    def _text(self, said: str) -> tuple[str, tuple[str, ...]]:
        """The text as it is kept, and whether it was cut."""
        text = clean(said)
        kept = cut(text, self._limit, self._count)
        return kept, ("cut",) if kept != text else ()

    def _sources(self, text: str, cited: Sequence[str]) -> tuple[str, ...]:
        """The turns a text comes from: those cited, else those that share most of its words, else all of them."""
        ids = {turn.id for turn in self._turns}
        named = tuple(one for one in cited if one in ids)
        if named:
            return named[:MOST_SOURCES]
        wanted = words(text)
        shared = [(len(wanted & has), turn.id) for turn, has in self._words]
        best = max((number for number, _ in shared), default=0)
        if best:
            return tuple(id for number, id in shared if number == best)[:MOST_SOURCES]
        return tuple(turn.id for turn in self._turns)[-MOST_SOURCES:]

    def _unverified(self, text: str, also: str = "") -> tuple[str, ...]:
        """`unverified` when a number, address or quotation in the text stands nowhere in its sources."""
        known = f"{self._all} {also} {self.state.goal}"
        loose = [hard for hard in _HARD.findall(text) if hard.strip('".,:;') not in known]
        return ("unverified",) if loose and self._turns else ()


def words(text: str) -> set[str]:
    """The content words of a text, folded."""
    return {word for word in (found.casefold() for found in _WORD.findall(text)) if not stop(word)}


def _folded(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _merged(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Both, each once; the oldest and the newest stay when there are too many."""
    both = tuple(dict.fromkeys([*old, *new]))
    return both if len(both) <= MOST_SOURCES else (*both[: MOST_SOURCES // 2], *both[-MOST_SOURCES // 2 :])
