"""What is worth keeping of a message, word for word: statements, each with the span of the text that it stands on.

Without a model. Sentences stay together up to `MOST_WORDS`, so that what a pronoun means stays beside it. Greetings,
thanks and short questions at either end are left out, and so are code, and lines that ctxmem itself put into the
context: a memory is never made from a memory. A sentence that settles something (see `topics`) stands alone, with what
refers back to it, because a later one may take its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctxmem.compressors.units import sentences
from ctxmem.compressors.words import stop
from ctxmem.memories.topics import Topic, topic

MOST_WORDS = 60
"""Words of a statement, unless a single sentence has more."""

MOST_CHARACTERS = 2_000
"""Characters of a statement; a longer sentence is cut."""

_ASIDE = 12  # words of a question that only asks
_OURS = re.compile(
    r"^(?:[^\n]{0,80}:[ \t]*\n)?[ \t]*\[(?:mem|ev|it)_[0-9a-f]{32}(?:[0-9a-f]{32})?[^\]\n]*\].*$", re.MULTILINE
)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BACK = frozenset("it its it's that that's this these those they them he she him her there his their".split())  # noqa: SIM905
_FILLER = frozenset(
    """
    hi hey hello bye goodbye thanks thank thx please sorry ok okay yep yup sure great cool nice awesome amazing wow
    haha lol hmm oh right exactly absolutely totally definitely good fine well done welcome congrats congratulations
    morning evening afternoon night talk soon later see take care glad hear sounds sound indeed true agreed
    """.split()  # noqa: SIM905 - a list of words
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody said, to be kept.

    Attributes:
        text: the words, white space folded.
        speaker: who said it.
        start: first character of its span in the message's text.
        end: character after its last.
        topic: what it settles; None when it settles nothing.
    """

    text: str
    speaker: str
    start: int
    end: int
    topic: Topic | None = None


@dataclass(frozen=True, slots=True)
class _Sentence:
    start: int
    end: int
    words: tuple[str, ...]
    keeps: bool
    topic: Topic | None


def statements(text: str, speaker: str) -> list[Statement]:
    """The statements of one message.

    >>> [one.text for one in statements("Hi there! I moved to Oslo in May. It is cold. How are you?", "user")]
    ['I moved to Oslo in May. It is cold.']

    Args:
        text: what was said.
        speaker: who said it.
    """
    found = []
    for group in _grouped(_sentences(text, speaker)):
        kept = _trimmed(group)
        if kept:
            start, end = kept[0].start, kept[-1].end
            settled = next((one.topic for one in kept if one.topic is not None), None)
            found.append(Statement(" ".join(text[start:end].split()), speaker, start, end, settled))
    return found


def _sentences(text: str, speaker: str) -> Iterator[_Sentence]:
    """The sentences, none of code or of our own lines."""
    read = _CODE.sub(_blank, _OURS.sub(_blank, text))
    for unit in sentences(read):
        body = read[unit.body : unit.end]
        words = tuple(word.casefold() for word in _WORD.findall(body))
        if not words:
            continue
        start = unit.body + len(body) - len(body.lstrip())
        end = min(unit.body + len(body.rstrip()), start + MOST_CHARACTERS)
        asks = body.rstrip().endswith(("?", "？")) and len(words) <= _ASIDE
        told = [word for word in words if not stop(word) and word not in _FILLER]
        yield _Sentence(start, end, words, bool(told) and not asks, topic(text[start:end], speaker))


def _grouped(found: Iterator[_Sentence]) -> Iterator[list[_Sentence]]:
    """Sentences that stay together."""
    group: list[_Sentence] = []
    for sentence in found:
        if group and _apart(group, sentence):
            yield group
            group = []
        group.append(sentence)
    if group:
        yield group


def _apart(group: Sequence[_Sentence], sentence: _Sentence) -> bool:
    """Whether a sentence begins a statement of its own."""
    if sum(len(one.words) for one in group) + len(sentence.words) > MOST_WORDS:
        return True
    if sentence.end - group[0].start > MOST_CHARACTERS or sentence.topic is not None:
        return True
    return any(one.topic is not None for one in group) and sentence.words[0] not in _BACK


def _trimmed(group: Sequence[_Sentence]) -> Sequence[_Sentence]:
    """The group without what says nothing at either end."""
    keeps = [i for i, one in enumerate(group) if one.keeps or one.topic is not None]
    return group[keeps[0] : keeps[-1] + 1] if keeps else ()


def _blank(match: re.Match[str]) -> str:
    """As long, and empty; line ends stay."""
    return re.sub(r"[^\n]", " ", match.group())
