"""The updater without a model: of what was said, the sentences that bear on the goal or stand out, word for word.

It is the seventh rung of the ladder, and the default where no model is at hand. A sentence is worth the rarity of the
words it shares with goal and open objectives, plus how much its words stand out for its length; names, numbers, ids and
addresses of a turn are kept as one line of artifacts. Nothing is made up, so every item quotes its source.
"""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from ctxmem.compressors.mem1.apply import Turn
from ctxmem.compressors.mem1.ops import Op, looks_like_error
from ctxmem.compressors.mem1.recall import terms
from ctxmem.compressors.mem1.state import State, clean, cut
from ctxmem.compressors.units import sentences
from ctxmem.compressors.words import salience
from ctxmem.ports import Counter

_CONSTRAINT = re.compile(
    r"\b(?:never|always|must(?:n't)?|don'?t|do not|only|at most|at least|no more than|prefer|remember|important)\b",
    re.I,
)
_ARTIFACT = re.compile(
    r"https?://[^\s\"'<>)\]},]+|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+|"
    r"(?:(?<![\w.-])[\w.-]+)?/(?:[\w.-]+/)*[\w.-]+|"
    r"[#$€£]?\b(?=[\w-]{0,80}\d)[A-Za-z_]+[\w-]*|\b\d[\d.,:/-]*\w*|\b[A-Za-z]+_[\w]+"
)
"""Runs of letters are entered at their start only: a long one, such as a file in base64, would take quadratic time."""

_ROLES = {"user": 1.0, "answer": 1.0, "obs": 0.4, "tool": 0.4, "assistant": 0.2}
_LONGEST = 60
MOST_ARTIFACTS = 24


@dataclass(frozen=True, slots=True)
class Sentence:
    """A piece of a turn with its worth."""

    turn: Turn
    text: str
    worth: float
    tokens: int


def extract(state: State, turns: Sequence[Turn], count: Counter, *, room: int | None = None) -> tuple[Op, ...]:
    """What to add to a state for some turns.

    Args:
        state: what is known; what it says already is not said again.
        turns: what was said since.
        count: the target model's counter.
        room: tokens the additions may take; a third of the state's bound by default.
    """
    room = state.bound // 3 if room is None else room
    ops: list[Op] = []
    for sentence in sorted(_ranked(state, turns, count), key=lambda s: -s.worth):
        if sentence.tokens <= room:
            ops.append(_op(sentence))
            room -= sentence.tokens
        if room < 8:
            break
    place = {turn.id: turn.at for turn in turns}
    return tuple(sorted([*ops, *_artifacts(state, turns)], key=lambda op: place[op.src[0]]))


def _op(sentence: Sentence) -> Op:
    role, text = sentence.turn.role, sentence.text
    bound = role == "user" and bool(_CONSTRAINT.search(text))
    claims = text.lower().startswith("user:")  # who is no user may not pass for one
    who = f"{role}: " if (role == "user") != claims else ""
    prio = 2 if bound else 1 if role in ("user", "answer") else 0
    return Op("add", "facts", text=who + text, prio=prio, src=(sentence.turn.id,))


def _ranked(state: State, turns: Sequence[Turn], count: Counter) -> list[Sentence]:
    pieces = [(turn, text) for turn in turns for text in dict.fromkeys(_pieces(turn.text))]
    if not pieces:
        return []
    spread = Tally(term for _, text in pieces for term in set(terms(text)))
    goals = set(terms(" ".join([state.goal, *(item.text for item in state.section("open"))])))
    known = [set(terms(item.text)) for item in state.items]
    costs = count.texts([text for _, text in pieces])
    ranked = []
    for (turn, text), tokens in zip(pieces, costs, strict=True):
        has = set(terms(text))
        if not has or looks_like_error(text) or any(has <= old for old in known):
            continue
        known.append(has)
        kept = text if tokens <= _LONGEST else cut(text, _LONGEST, count)
        ranked.append(Sentence(turn, kept, _worth(turn, has, goals, spread, len(pieces)), min(tokens, _LONGEST) + 6))
    return ranked


def _worth(turn: Turn, has: set[str], goals: set[str], spread: Tally[str], number: int) -> float:
    near = sum(log(1 + number / spread[term]) for term in has & goals)
    loud = sum(map(salience, has)) / (6 + len(has))
    return near + 2 * loud + _ROLES.get(turn.role, 0.3)


def _pieces(text: str) -> Iterator[str]:
    """Sentences of prose; of JSON the scalars with their keys; each in one line."""
    value = _decoded(text)
    if value is not None:
        yield from (f"{path}: {leaf}" for path, leaf in leaves(value) if leaf)
        return
    for unit in sentences(text[:200_000]):
        piece = clean(text[unit.body : unit.end])
        if len(piece) > 2:
            yield piece


def _decoded(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths and scalars of decoded JSON, in order, those of one object without objects in it together."""
    if isinstance(value, dict):
        flat = {key: leaf for key, leaf in value.items() if not isinstance(leaf, dict | list)}
        if flat:
            yield path or "data", clean(", ".join(f"{key}={leaf}" for key, leaf in flat.items() if leaf is not None))
        for key, member in value.items():
            if isinstance(member, dict | list):
                yield from leaves(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        yield from _listed(value, path)


def _listed(value: list[Any], path: str) -> Iterator[tuple[str, str]]:
    plain = [str(member) for member in value if not isinstance(member, dict | list)]
    if plain:
        yield path or "list", clean(", ".join(plain))
    for number, member in enumerate(value):
        if isinstance(member, dict | list):
            yield from leaves(member, f"{path}[{number}]")


def _artifacts(state: State, turns: Sequence[Turn]) -> Iterator[Op]:
    """One line a turn of the ids, addresses, paths and numbers that the state does not hold yet."""
    known = state.text()
    for turn in turns:
        found = [
            mark
            for mark in dict.fromkeys(match.rstrip(".,:;/-") for match in _ARTIFACT.findall(turn.text[:200_000]))
            if len(mark) > 3 and mark not in known
        ]
        if found:
            line = ", ".join(found[:MOST_ARTIFACTS])
            known += line
            yield Op("add", "artifacts", text=clean(line), src=(turn.id,))
