"""Spans of a text that pruning must not touch (hard), and those it should touch last (soft).

Found by structure, never by a model: the same text always gives the same spans. Hard spans come out byte for byte in
whatever a text is pruned to.
"""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,}|~{3,})[^`\n]*\n(?:.*?^[ \t]*(?P=mark)[`~]*[ \t]*$|.*\Z)"
    r"|(?P<ticks>`{3,}).*?(?:(?P=ticks)`*|\Z)",
    re.M | re.S,
)
_INLINE = re.compile(r"(?P<mark>`{1,2})(?!`)[^`\n]{1,400}(?P=mark)(?!`)")
_KEEP = re.compile(r"<ctx:keep>.*?(?:</ctx:keep>|\Z)", re.S)
_MARK = re.compile(r"\[[^\[\]\n]{0,80}\bctx:[0-9a-zA-Z_]{4,64}\b[^\[\]\n]{0,80}\]|\bit_[0-9a-f]{32}\b")
_SPECIAL = re.compile(
    r"<[|｜][^|｜<>\n]{1,64}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[(?:CLS|SEP|MASK)\]"
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]{0,63})(?:\s[^<>]{0,400})?(/?)>")
_TABLE = re.compile(r"(?:^[ \t]*\|[^\n]*\n?){2,}|(?:^[^\t\n]*\t[^\t\n]*\t[^\n]*\n?){3,}", re.M)
_JSON_OPEN = re.compile(r"\{\s*[\"}]|\[\s*[\[{\"\d-]")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}\.?"
_MEASURE = (
    r"(?:%|°C?|(?:km2?|cm|mm|kg|mg|GHz|MHz|Hz|[kMGT]i?B|ms|million|billion|percent|years?|hours?|minutes?|seconds?"
    r"|days?|miles?|dollars?|tokens?|m|s|h|k|[ap]m)\b)"
)
_NEGATOR = r"not|never|no|none|neither|nor|cannot|without|except|unless|\w{1,12}n['’]t"
_GLUE = r"[^\S\n]+(?:be|been|a|an|the|any|to)"
_INITIAL = r"[A-Z]\.(?=[^\S\n]?(?!(?:The|This|That|In|It|He|She|They|We|But|And|An?)\b)[A-Z])"
_CAPITAL = rf"(?:[A-Z][\w'’-]+|{_INITIAL})"
_TITLE = rf"(?<![^\s(])[\"“](?=[A-Z\d])(?![^\"”\n]{{0,60}}\b(?:{_NEGATOR})\b)[^\"”“\n.!?;:]{{2,60}}(?<!\s)[\"”](?!\w)"
_LINK = r"[^\S\n]+(?:of|the|de|von|van|and|&)"
_JSON_TRIES = 64
_DENSE_TAGS = 6
_PROSE_TAG = re.compile(r"(?:blockquote|br|div|d[dlt]|em|h[1-6]|li|[ou]l|p|span|strong|su[bp])\Z", re.I)
_BLOCK_TAG = re.compile(r"(?:blockquote|div|d[dlt]|h[1-6]|li|[ou]l|p)\Z", re.I)
_PROSE_PER_TAG = 60
_APART = 400
"""Characters between two tags that make one piece of data no more."""


ATOMS = (
    ("blob", 0.25, r"[A-Za-z0-9+/=_-]{64,}"),
    ("url", 1.0, r"(?:https?|ftp|file|s3)://[^\s<>\"'）】]+[^\s<>\"'.,;:!?)）】\]]"),
    ("email", 1.0, r"\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4}"),
    ("path", 1.0, r"(?<![\w/])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[\w.@+-]{1,128}[/\\])+[\w.@+-]{0,128}\w"),
    ("hash", 1.0, r"\b(?=[0-9a-f-]{0,64}\d)(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{7,64})\b"),
    ("date", 1.0, r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)?\b"),
    ("day", 1.0, rf"\b(?:\d{{1,2}}\s)?{_MONTH}\s\d{{1,4}}(?:,\s\d{{4}})?\b"),
    ("number", 1.0, rf"[$€£¥]?\b\d+(?:[.,:–-]\d+)*(?:\s?{_MEASURE})?"),
    ("identifier", 0.75, r"\b(?:\w+_\w+|[a-z]+[A-Z]\w*|(?:[A-Z][a-z0-9]+){2,}|[A-Z][A-Z0-9-]+)(?:[.:/-]\w+){0,8}\b"),
    ("title", 0.5, _TITLE),
    ("name", 0.5, rf"\b{_CAPITAL}(?:{_LINK}(?=[^\S\n]+[A-Z]))?(?:(?:[^\S\n]+|(?<=\.)){_CAPITAL}){{1,5}}"),
    ("negation", 1.0, rf"(?i:\b(?:{_NEGATOR})\b(?:{_GLUE}\b){{0,2}}(?:[^\S\n]+[\w'’-]+)?)"),
)
"""Kind, weight in (0, 1], pattern: what is never cut in two and is dropped last."""

QUOTES = '"“”'
_QUOTE = re.compile(r"[\"“«][^\"”»\n]{2,160}[\"”»]")
_ALARM = re.compile(r"^.*\b(?:error|exception|traceback|fatal|panic|failed|failure|warning)\b.*$", re.M | re.I)
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of a text.

    Attributes:
        start: offset of its first character.
        end: offset after its last character.
        weight: how much it should stay, in (0, 1]; 1 for hard spans.
    """

    start: int
    end: int
    weight: float = 1.0


def hard(text: str) -> tuple[Span, ...]:
    """The spans that stay whatever happens, in order, none overlapping.

    Code fences and inline code, `<ctx:keep>` blocks, restore marks, special-token text, JSON, dense XML (else its tags
    alone, but for those of elements of prose) and tables.

    >>> text = "Run `make test` first."
    >>> [text[span.start : span.end] for span in hard(text)]
    ['`make test`']
    """
    return spans(text)[0]


def spans(text: str) -> tuple[tuple[Span, ...], dict[Span, Span]]:
    """The hard spans; and the tags of paragraphs, headings and list items, each with the other tag of its pair.

    Such an element frames prose: it stays when something in it does. Elements never cross each other, and words are
    apart without their tags, too.

    >>> text = "<p>So.</p> <b>No.</b>"
    >>> [[text[span.start : span.end] for span in sorted(some)] for some in spans(text)]
    [['<b>', '</b>'], ['<p>', '</p>']]
    """
    found: list[tuple[int, int]] = []
    for pattern in (_FENCE, _KEEP, _INLINE, _MARK, _SPECIAL, _TABLE):
        found += [match.span() for match in pattern.finditer(text) if match.end() > match.start()]
    found += _json_blocks(text)
    found += _tags(text)
    merged = dict.fromkeys(_merged(found))
    elements: dict[Span, Span] = {}
    for opened, closed in _pairs(text):
        if opened in merged and closed in merged:
            del merged[opened], merged[closed]
            elements |= {Span(*opened): Span(*closed), Span(*closed): Span(*opened)}
    return tuple(Span(start, end) for start, end in merged), elements


def soft(text: str) -> tuple[Span, ...]:
    """Passages whose words should go last, by start: quotations and the lines of errors. They may overlap.

    What should go last word by word is in `ATOMS`.
    """
    quotes = [Span(*match.span(), 0.5) for match in _QUOTE.finditer(text)]
    alarms = [Span(*match.span(), 1.0) for match in _ALARM.finditer(text)]
    return tuple(sorted(quotes + alarms))


def pinned(text: str) -> bool:
    """Whether it holds what not even pruning by structure may cut: `<ctx:keep>`, a restore mark, special-token text."""
    return any(pattern.search(text) for pattern in (_KEEP, _MARK, _SPECIAL))


def alarms(text: str) -> bool:
    """Whether a line of it speaks of an error or a warning."""
    return _ALARM.search(text) is not None


def balanced(source: str, pruned: str) -> bool:
    """Whether fences and brackets that were balanced still are, and no special token came about by joining.

    >>> balanced("a (b) c", "a (b c"), balanced("1) b", "b")
    (False, True)
    """
    if source.count("```") % 2 != pruned.count("```") % 2 or _SPECIAL.findall(source) != _SPECIAL.findall(pruned):
        return False
    return all(
        source.count(left) != source.count(right) or pruned.count(left) == pruned.count(right)
        for left, right in _BRACKETS
    )


def _json_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Objects, and arrays long enough not to be a citation mark."""
    decoder = json.JSONDecoder()
    position, tries = 0, _JSON_TRIES
    while tries and (match := _JSON_OPEN.search(text, position)):
        try:
            _, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            position, tries = match.start() + 1, tries - 1
            continue
        if end - match.start() > 8:
            yield match.start(), end
        position = end


def _tags(text: str) -> Iterator[tuple[int, int]]:
    """Whole elements where tags are dense, as in data; else the tags alone, as around prose.

    Paragraphs and list items are prose however many there are.
    """
    tags = list(_TAG.finditer(text))
    names = {match[2] for match in tags if match[1]}
    yield from (match.span() for match in tags if match[2] in names)
    run: list[re.Match[str]] = []
    for match in [tag for tag in tags if not _PROSE_TAG.match(tag[2])]:
        if run and match.start() - run[-1].end() > _APART:
            yield from _dense(run, names)
            run = []
        run.append(match)
    yield from _dense(run, names)


def _pairs(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Opening and closing tag of each element of prose that stands apart from the words around it."""
    opened: list[re.Match[str]] = []
    names = Tally[str]()
    for match in _TAG.finditer(text):
        name = match[2]
        if match[3] or not _BLOCK_TAG.match(name):
            continue
        if not match[1]:
            opened.append(match)
            names[name] += 1
        while match[1] and names[name]:
            first = opened.pop()
            names[first[2]] -= 1
            if first[2] != name:
                continue
            before, after = text[first.start() - 1 : first.start()], text[match.end() : match.end() + 1]
            if (before.isspace() or before in ("", ">")) and (after.isspace() or after in ("", "<")):
                yield first.span(), match.span()
            break


def _dense(run: list[re.Match[str]], names: set[str]) -> Iterator[tuple[int, int]]:
    """All that neighbouring tags hold, if that is little for so many tags."""
    if len(run) < _DENSE_TAGS or not any(match[2] in names for match in run):
        return
    start, end = run[0].start(), run[-1].end()
    if end - start - sum(len(match[0]) for match in run) <= _PROSE_PER_TAG * len(run):
        yield start, end


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
