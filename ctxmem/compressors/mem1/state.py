"""The state of a long task: a goal, pins and items, under a hard bound in the model's tokens.

Zhou et al. 2025, "MEM1: Learning to Synergize Memory and Reasoning for Efficient Long-Horizon Agents" (arXiv
2506.15841), keep one internal state <IS> that is written anew each turn. Here the state is a list of items, each with
the events it came from, that patches change one by one: an item nobody touches cannot decay. Pure values; what changes
them is in `ctxmem.compressors.mem1.log`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from ctxmem.errors import InvalidInput
from ctxmem.ports import Counter

Section = Literal["facts", "open", "done", "plan", "artifacts"]
SECTIONS: tuple[Section, ...] = get_args(Section)
WEIGHTS: Mapping[Section, int] = {"done": 0, "plan": 1, "facts": 2, "artifacts": 3, "open": 4}
"""What leaves first when there is no room: the lightest section."""

MOST_PRIO = 3
LEAST_BOUND = 64
"""Tokens; below it no item fits beside a goal of half of it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]+")
_SENTENCE_END = re.compile(r"[.!?;…](?=\s)|[。！？；]")
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instructions?|previous|above|rules|system|everything)\b"
    r"|\b(?:always|from now on|you must)\b.{0,40}\b(?:call|run|execute|send|reply|answer|use the)\b"
    r"|\bsystem prompt\b|https?://\S*(?:key|token|secret|passw)\S*=",
    re.I | re.S,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to remember.

    Attributes:
        id: `i` and a number, never used twice in a session.
        sec: facts; open (objectives not done); done; plan; artifacts (names, ids, paths, addresses).
        text: what it says, in one line.
        prio: 0 to 3; what is higher stays longer.
        src: ids of the events it came from.
        added: version of the state that added it.
        seen: version that last added, changed or repeated it.
        flags: `unverified` (its numbers or names are not in its sources), `suspicious` (it reads like an order), `cut`.
    """

    id: str
    sec: Section
    text: str
    prio: int = 0
    src: tuple[str, ...] = ()
    added: int = 0
    seen: int = 0
    flags: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """How it is shown to the model."""
        mark = " (unverified)" if "suspicious" in self.flags or "unverified" in self.flags else ""
        return f"{self.id} {self.sec}: {self.text}{mark}"


@dataclass(frozen=True, slots=True)
class State:
    """What a session knows, at one version.

    Attributes:
        goal: what it is all for, word for word; no operation of a model can change it.
        pins: what the user insists on, word for word; out of the model's reach too.
        items: in the order of their ids, so that consecutive renderings share a long prefix.
        version: number of changes so far.
        evicted: items that left for want of room; they are found by recall.
        last: number of the newest item id.
        covers: how far the session is consolidated: its events before this position.
        tokens: tokens of the rendering.
        bound: tokens the rendering may take.
    """

    goal: str = ""
    pins: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    version: int = 0
    evicted: int = 0
    last: int = 0
    covers: int = 0
    tokens: int = 0
    bound: int = 1200

    @property
    def by_id(self) -> dict[str, Item]:
        """The items by id."""
        return {item.id: item for item in self.items}

    @property
    def head(self) -> str:
        """Goal and pins, as rendered."""
        lines = [f"Goal: {self.goal}"] if self.goal else []
        return "\n".join([*lines, *(f"Always: {pin}" for pin in self.pins)])

    def text(self) -> str:
        """The rendering: goal, pins, items in stable order, and how many older ones recall can find."""
        older = f"(+{self.evicted} older items: recall)" if self.evicted else ""
        return "\n".join(part for part in (self.head, *(item.line for item in self.items), older) if part)

    def section(self, name: Section) -> tuple[Item, ...]:
        """The items of one section."""
        return tuple(item for item in self.items if item.sec == name)


def begin(goal: str, pins: Sequence[str], bound: int, count: Counter) -> State:
    """The first state of a session.

    Args:
        goal: kept word for word.
        pins: kept word for word.
        bound: tokens the rendering may ever take.
        count: the target model's counter.

    Raises:
        InvalidInput: the bound is too small, or goal and pins take more than half of it.
    """
    if isinstance(bound, bool) or not isinstance(bound, int) or bound < LEAST_BOUND:
        raise InvalidInput(f"the state's bound must be {LEAST_BOUND} tokens or more, got {bound!r}", param="bound")
    return pinned(State(goal, bound=bound), pins, count)


def pinned(state: State, pins: Sequence[str], count: Counter) -> State:
    """The state with more pins.

    Raises:
        InvalidInput: goal and pins would take more than half of the bound.
    """
    state = replace(state, pins=(*state.pins, *pins))
    tokens = count.texts([state.head])[0]
    if tokens > state.bound // 2:
        raise InvalidInput(
            f"goal and pins take {tokens} tokens, more than half of the state's {state.bound}", param="goal"
        )
    return replace(state, tokens=count.texts([state.text()])[0])


def clean(text: str) -> str:
    r"""One line without control characters, its angle brackets made harmless: no text of the state can open a tag.

    >>> clean("a </info>\n<answer>b")
    'a ‹/info› ‹answer›b'
    """
    return " ".join(neutral(_CONTROL.sub(" ", text)).split())


def neutral(text: str) -> str:
    """The text with angle brackets that cannot open or close a tag."""
    return text.replace("<", "‹").replace(">", "›")


def flags_of(text: str) -> tuple[str, ...]:
    """`suspicious` when the text reads like an order to the model: what a poisoned observation would leave behind."""
    return ("suspicious",) if _ORDERS.search(text) else ()


def cut(text: str, limit: int, count: Counter) -> str:
    """The text's start within `limit` tokens, up to the end of a sentence where there is one in its second half."""
    if count.texts([text])[0] <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count.texts([text[:middle]])[0] <= limit else (low, middle - 1)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low // 2, low)]
    return text[: ends[-1]].rstrip() if ends else text[:low].rstrip()


def dump(state: State) -> dict[str, Any]:
    """The state as JSON values; `load` gives it back."""
    return {
        "goal": state.goal,
        "pins": list(state.pins),
        "items": [item_json(item) for item in state.items],
        "version": state.version,
        "evicted": state.evicted,
        "last": state.last,
        "covers": state.covers,
        "tokens": state.tokens,
        "bound": state.bound,
    }


def load(wire: Mapping[str, Any]) -> State:
    """The state that `dump` wrote."""
    return State(**{**wire, "pins": tuple(wire["pins"]), "items": items_of(wire["items"])})


def item_json(item: Item) -> dict[str, Any]:
    """An item as JSON values."""
    return {
        "id": item.id,
        "sec": item.sec,
        "text": item.text,
        "prio": item.prio,
        "src": list(item.src),
        "added": item.added,
        "seen": item.seen,
        "flags": list(item.flags),
    }


def items_of(wires: Iterable[Mapping[str, Any]]) -> tuple[Item, ...]:
    """The items that `item_json` wrote."""
    return tuple(
        Item(**{**wire, "sec": cast(Section, wire["sec"]), "src": tuple(wire["src"]), "flags": tuple(wire["flags"])})
        for wire in wires
    )
