"""JSON made shorter by its structure: long arrays and long strings lose their middle, every key stays, and it parses.

What is left is slices of the source, byte for byte, and marks that say how much is missing: a string in place of a run
of elements, or inside a string. Elements that report an error, and those that share words with a question, go last.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ctxmem.compressors import content, protect
from ctxmem.compressors.prune import Prune, Pruned, Refusal
from ctxmem.compressors.relevance import Question
from ctxmem.compressors.words import stop
from ctxmem.ports import Counter, TokenScores

MOST_ITEMS = 512
"""Elements of the longest array that is shortened before anything else is."""

CHARACTERS_PER_ITEM = 24
"""Characters that a string keeps for each element that an array keeps."""

_SHORTEST = 48
"""Characters of the shortest string that is cut."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+', re.S)
_ATOM = re.compile(r"(?:\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\])", re.S)
_WORD = re.compile(r"\w+")

NO_SCORES = TokenScores((), (), ())
"""Of what is pruned by its structure."""

Scored = tuple[list[TokenScores], str]
"""Scores of texts, and by what."""

Edit = tuple[int, int, str]
"""A span of the source and what stands in its place."""


@dataclass(slots=True)
class Node:
    """A JSON value where it stands in the source.

    Attributes:
        start: offset of its first character.
        end: offset after its last.
        parts: elements of an array, values of an object.
        array: whether it is an array.
        first: elements in the order in which they are worth keeping; found when first asked for.
    """

    start: int
    end: int = 0
    parts: list[Node] = field(default_factory=list)
    array: bool = False
    first: list[int] = field(default_factory=list)


def prune_json(source: str, budget: int, count: Counter, gate: Prune, question: Question | None = None) -> Pruned:
    """Shorten JSON to at most `budget` tokens of `count`, or refuse with the reason.

    Args:
        source: one JSON value, whitespace around it allowed.
        budget: tokens allowed.
        count: counts in the target model's tokens.
        gate: what a pruning must save.
        question: what it will be asked.
    """
    before = count.texts([source])[0]
    root = None if before <= budget else parsed(source)
    if root is None:
        return Pruned(source, before, before, refusal="within_budget" if before <= budget else "nothing_to_prune")
    tree = _Tree(source, root, frozenset(_words(question.text)) if question else frozenset())
    best: tuple[str, list[Edit], int] | None = None
    low, high = 1, MOST_ITEMS
    while low <= high:
        middle = (low + high) // 2
        edits = list(tree.edits(middle))
        text = _edited(source, edits)
        tokens = count.texts([text])[0]
        if tokens <= budget:
            best, low = (text, edits, tokens), middle + 1
        else:
            high = middle - 1
    refusal: Refusal = ""
    if best is None:
        refusal = "hard_spans_over_budget" if any(True for _ in tree.edits(1)) else "nothing_to_prune"
    elif before - best[2] < max(gate.min_saved, gate.min_share * before):
        refusal = "no_gain"
    if best is None or refusal:
        return Pruned(source, before, before, refusal=refusal)
    return Pruned(best[0], before, best[2], tuple((start, end) for start, end, _ in best[1]))


def is_json(text: str) -> bool:
    """Whether all of the text is one JSON value with something in it."""
    return content.kind(text) == "data" and text.strip()[:1] in ("{", "[") and parses(text)


def scored(texts: Sequence[str], score: Callable[[list[str]], Scored]) -> Scored:
    """Scores of the texts that are no JSON; nothing is spent on the others."""
    structured = [is_json(text) for text in texts]
    read = [text for text, skip in zip(texts, structured, strict=True) if not skip]
    if texts and not read:
        return [NO_SCORES] * len(texts), "structure"
    found, by = score(read)
    scores = iter(found)
    return [NO_SCORES if skip else next(scores) for skip in structured], by


def parsed(source: str) -> Node | None:
    """The values of a JSON text by their places; None when it is no JSON, or nested too deeply to read."""
    if not parses(source):
        return None
    open_: list[Node] = [Node(0, array=True)]
    for match in _TOKEN.finditer(source):
        token = match[0]
        if token in "]}":
            open_.pop().end = match.end()
        elif token in "[{":
            node = Node(match.start(), array=token == "[")
            open_[-1].parts.append(node)
            open_.append(node)
        elif token == ":":
            open_[-1].parts.pop()  # what stood before it was a key
        elif token != ",":
            open_[-1].parts.append(Node(match.start(), match.end()))
    return open_[0].parts[0]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A parsed source and what of it must stay longest.

    Attributes:
        source: the text.
        root: its value.
        asked: words of the question.
    """

    source: str
    root: Node
    asked: frozenset[str]

    def edits(self, items: int) -> Iterator[Edit]:
        """What to put in place of what, with arrays cut to `items` elements, in order."""
        return iter(sorted(self._edits(items)))

    def _edits(self, items: int) -> Iterator[Edit]:
        left = [self.root]
        while left:
            node = left.pop()
            if node.array and len(node.parts) > items:
                stays = self._staying(node, items)
                yield from self._runs(node, stays)
                left += (node.parts[i] for i in stays)
            elif node.parts:
                left += node.parts
            elif self.source[node.start] == '"':
                yield from self._middle(node, items * CHARACTERS_PER_ITEM)

    def _staying(self, node: Node, items: int) -> list[int]:
        if not node.first:
            last = len(node.parts) - 1
            bonus = [self._worth(part) + (i in (0, last)) for i, part in enumerate(node.parts)]
            node.first = sorted(range(len(node.parts)), key=lambda i: (-bonus[i], i))
        return sorted(node.first[:items])

    def _worth(self, part: Node) -> float:
        text = self.source[part.start : part.end]
        if protect.pinned(text):
            return 100.0
        shared = len(self.asked & set(_words(text))) if self.asked else 0
        return 2.0 * shared + 3.0 * protect.alarms(text)

    def _runs(self, node: Node, stays: Sequence[int]) -> Iterator[Edit]:
        """A mark for each run of elements that go, where the mark is the shorter; what is pinned stays."""
        for before, after in pairwise([-1, *stays, len(node.parts)]):
            run = [
                part
                for part in node.parts[before + 1 : after]
                if not protect.pinned(self.source[part.start : part.end])
            ]
            if not run or len(run) < after - before - 1:
                continue
            mark = f'"[{len(run)} of {len(node.parts)} left out]"'
            if run[-1].end - run[0].start > len(mark):
                yield run[0].start, run[-1].end, mark

    def _middle(self, node: Node, characters: int) -> Iterator[Edit]:
        """The middle of a string for a mark; escapes are never cut in two."""
        inner = self.source[node.start + 1 : node.end - 1]
        if len(inner) <= max(_SHORTEST, characters) or protect.pinned(inner):
            return
        ends = [match.end() for match in _ATOM.finditer(inner)] if "\\" in inner else range(1, len(inner) + 1)
        head = ends[max(0, bisect_right(ends, 2 * characters // 3) - 1)]
        tail = ends[min(len(ends) - 1, bisect_right(ends, len(inner) - characters // 3))]
        mark = f" [{tail - head} characters left out] "
        if tail - head > len(mark):
            yield node.start + 1 + head, node.start + 1 + tail, mark


def _edited(source: str, edits: Sequence[Edit]) -> str:
    pieces, at = [], 0
    for start, end, mark in edits:
        pieces += [source[at:start], mark]
        at = end
    return "".join([*pieces, source[at:]])


@lru_cache(maxsize=4)  # a text is asked about several times on its way, never much later
def parses(text: str) -> bool:
    """Whether a text is one JSON value, other than an empty one."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(value) or value == 0


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if not stop(word)]
