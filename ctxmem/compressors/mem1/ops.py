"""Operations on a state, read from whatever a model wrote: the first five rungs of the ladder.

1 schema-valid JSON, whose operations are objects, or lines at a third of the output tokens; 2 JSON after repair; 3 bare
line operations (`+ facts: ...`); 4 tagged items (`<fact>...</fact>`); 5 the
prose of <think>, <IS> or <summary>. Only what a model says is read here, never an observation, and nothing raises.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ctxmem.compressors.mem1.state import MOST_PRIO, SECTIONS, Section
from ctxmem.compressors.units import sentences

OpName = Literal["add", "set", "del"]

_NAMES: Mapping[str, OpName | None] = {
    **dict.fromkeys(("add", "insert", "new", "+"), "add"),
    **dict.fromkeys(("set", "update", "replace", "edit", "~", "="), "set"),
    **dict.fromkeys(("del", "delete", "remove", "-"), "del"),
    **dict.fromkeys(("noop", "none", "keep"), None),
}
_SINGULAR = {"fact": "facts", "artifact": "artifacts", "todo": "open", "question": "open", "objective": "open"}
_LINE = re.compile(
    r"^[^\S\n]*+(?:(?P<op>\+|[~=][^\S\n]*+(?P<id>i\d+))[^\S\n]*+(?P<sec>[a-z]++)?[^\S\n]*+(?P<prio>[0-3])?[^\S\n]*+"
    r":\s*+(?P<text>.+)|-[^\S\n]*+(?P<gone>i\d+)[^\S\n]*+(?:\(.*\))?)$",
    re.M | re.I,
)
_TAGGED = re.compile(
    r"<(?P<tag>facts?|open|done|plan|artifacts?|item)\b(?P<attributes>[^>]{0,200})>(?P<body>.*?)"
    r"(?:</(?P=tag)>|(?=<(?:facts?|open|done|plan|artifacts?|item)\b)|\Z)",
    re.S | re.I,
)
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*[\"']?([\w-]+)")
_PROSE = re.compile(
    r"<(think|is|summary)>(.*?)(?:</\1>|(?=<(?:search|query|answer|tool_call|action)\b)|\Z)", re.S | re.I
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+", re.M)
_FENCE = re.compile(r"```[a-z]*\s*(.*?)(?:```|\Z)", re.S | re.I)
_TRAILING = re.compile(r",(\s*[}\]])")
_ERROR = re.compile(
    r"\s*(?:[\w.]*(?:error|exception)\b\s*[:(]|traceback \(most|internal server error|rate limit|http(?:/\S+)? [45]\d\d"
    r"|\[?error\b)",
    re.I,
)
MOST_TEXT = 65_536
"""Characters of an answer that are read; what comes after them is ignored."""

MOST_OPS = 64
"""Operations of one answer that count."""


@dataclass(frozen=True, slots=True)
class Op:
    """One change a model asked for; not yet checked against a state.

    Attributes:
        op: add, set or del.
        sec: section; None leaves a set item where it is.
        id: the item to set or delete.
        text: what it should say.
        prio: 0 to 3; None leaves it.
        src: event ids the model cites.
    """

    op: OpName
    sec: Section | None = None
    id: str = ""
    text: str = ""
    prio: int | None = None
    src: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read from an answer.

    Attributes:
        ops: the operations.
        rung: which of the five ways read them; 0 when none did.
        error: why the answer was not schema-valid; empty when it was.
    """

    ops: tuple[Op, ...] = ()
    rung: int = 0
    error: str = ""


def parse(answer: str) -> Parsed:
    """Read operations from a model's answer.

    >>> parse('{"ops": [{"op": "add", "sec": "facts", "text": "Paris is in France"}]}').rung
    1
    >>> parse('{"ops": ["+ facts 2: Paris is in France", "= i3 done: Paris", "- i4"]}').ops[1]
    Op(op='set', sec='done', id='i3', text='Paris', prio=None, src=())
    >>> parse("+ facts: Paris is in France").ops[0].text
    'Paris is in France'
    """
    answer = answer[:MOST_TEXT]
    found, error = _strict(answer)
    if found is not None:
        return Parsed(found, 1)
    for rung, read in ((2, _repaired), (3, _lines), (4, _tagged), (5, _prose)):
        ops = tuple(op for op in read(answer) if op.op == "del" or (op.text.strip() and not looks_like_error(op.text)))
        if ops:
            return Parsed(ops[:MOST_OPS], rung, error)
    return Parsed(error=error)


def looks_like_error(text: str) -> bool:
    """Whether the text is the message of a failure, which must never become a memory."""
    return bool(_ERROR.match(text))


def payload(answer: str) -> Any:
    """The first JSON value in an answer, repaired if need be; None when there is none."""
    for candidate in _candidates(answer[:MOST_TEXT]):
        for text in (candidate, _mended(candidate)):
            value = _json(text)
            if isinstance(value, dict | list):
                return value
    return None


def _strict(answer: str) -> tuple[tuple[Op, ...] | None, str]:
    """The operations when the answer opens with JSON in which every one is valid; else None and what is wrong."""
    start = answer.find("[") if "{" not in answer or answer.lstrip()[:1] == "[" else answer.find("{")
    if start < 0:
        return None, "no JSON object"
    try:
        value, _ = json.JSONDecoder().raw_decode(answer, start)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {str(error)[:120]}"
    listed = _listed(value)
    wrong = 'no list "ops"' if listed is None else next(filter(None, map(_fault, listed[:MOST_OPS])), "")
    if wrong or listed is None:
        return None, wrong
    return tuple(op for op in map(_op, listed[:MOST_OPS]) if op is not None), ""


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and isinstance(value.get("ops"), list):
        return cast(list[Any], value["ops"])
    return value if isinstance(value, list) and value and all(isinstance(one, dict) for one in value) else None


def _fault(wire: Any) -> str:
    """What is wrong with an operation; empty when nothing is."""
    if isinstance(wire, str):
        return "" if _line(wire) is not None else f"no operation: {wire[:40]!r}"
    if not isinstance(wire, dict):
        return "an op must be an object or a line"
    name, text = str(wire.get("op", "")).lower(), wire.get("text")
    kind = _NAMES.get(name, "unknown")
    said = isinstance(text, str) and bool(text.strip())
    wrong = {
        f"unknown op {name[:20]!r}": kind == "unknown",
        "add needs a text": kind == "add" and not said,
        f"{kind} needs an id": kind in ("set", "del") and not isinstance(wire.get("id"), str),
        "the text is an error's message": kind in ("add", "set") and said and looks_like_error(str(text)),
    }
    return next((fault for fault, holds in wrong.items() if holds), "")


def _op(wire: Any) -> Op | None:
    """The operation; None for one that says to do nothing, or is wrong."""
    if isinstance(wire, str):
        return _line(wire)
    kind = None if _fault(wire) else _NAMES[str(wire["op"]).lower()]
    if kind is None:
        return None
    text, id, src = wire.get("text"), wire.get("id"), wire.get("src")
    return Op(
        op=kind,
        sec=_section(wire.get("sec")),
        id=id if isinstance(id, str) else "",
        text=text if isinstance(text, str) else "",
        prio=_prio(wire.get("prio")),
        src=tuple(one for one in src if isinstance(one, str)) if isinstance(src, list) else (),
    )


def _section(name: Any) -> Section | None:
    name = str(name or "").strip().lower()
    name = _SINGULAR.get(name, name)
    return cast(Section, name) if name in SECTIONS else None


def _prio(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(max(0, min(MOST_PRIO, value)))


def _repaired(answer: str) -> Iterator[Op]:
    """Operations from JSON with fences, trailing commas, an end that is missing, or Python's quotes."""
    value = payload(answer)
    listed = _listed(value) or (_listed([value]) if isinstance(value, dict) and "op" in value else None) or []
    yield from filter(None, map(_op, listed))


def _candidates(answer: str) -> Iterator[str]:
    yield from (match[1] for match in _FENCE.finditer(answer))
    starts = [at for at in (answer.find("{"), answer.find("[")) if at >= 0]
    yield from (answer[at:] for at in sorted(starts))


def _json(text: str) -> Any:
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text.strip()) if len(text) < 20_000 else None
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return value


def _mended(text: str) -> str:
    """The text with trailing commas gone and open strings, lists and objects closed; what follows the value is cut."""
    closers: list[str] = []
    quoted = escaped = False
    for at, char in enumerate(text):
        if quoted:
            quoted, escaped = (char != '"' or escaped), char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
        elif closers and char == closers[-1]:
            closers.pop()
            if not closers:
                return _TRAILING.sub(r"\1", text[: at + 1])
    whole = text.rstrip().rstrip(",:") + ('"' if quoted else "") + "".join(reversed(closers))
    return _TRAILING.sub(r"\1", whole)


def _lines(answer: str) -> Iterator[Op]:
    yield from map(_matched, _LINE.finditer(answer))


def _line(text: str) -> Op | None:
    """The operation that a line is; None when it is none, or would keep the message of a failure."""
    match = _LINE.fullmatch(text)
    op = _matched(match) if match else None
    return None if op is None or looks_like_error(op.text) else op


def _matched(match: re.Match[str]) -> Op:
    """`+ section prio: text`, `= id section prio: text` or `- id`; section and prio may be left out."""
    if match["gone"]:
        return Op("del", id=match["gone"].lower())
    sec, prio = _section(match["sec"]), int(match["prio"]) if match["prio"] else None
    if match["id"]:
        return Op("set", sec, match["id"].lower(), match["text"], prio)
    return Op("add", sec or "facts", text=match["text"], prio=prio)


def _tagged(answer: str) -> Iterator[Op]:
    for match in _TAGGED.finditer(answer):
        attributes = {name.lower(): value for name, value in _ATTRIBUTE.findall(match["attributes"])}
        sec = _section(attributes.get("sec") or attributes.get("section") or match["tag"]) or "facts"
        for line in _BULLET.sub("\n", match["body"]).split("\n"):
            text = re.sub(r"</?\w[^>]{0,80}>", " ", line).strip()
            if text:
                yield Op("set" if attributes.get("id") else "add", sec, attributes.get("id", ""), text)


def _prose(answer: str) -> Iterator[Op]:
    for match in _PROSE.finditer(answer):
        body = _BULLET.sub("\n", re.sub(r"</?\w[^>]{0,80}>", " ", match[2]))
        for unit in sentences(body):
            text = body[unit.body : unit.end].strip()
            if len(text) > 2:
                yield Op("add", "facts", text=text, prio=0)


def prose(answer: str) -> str:
    """What stands in <think>, <IS> or <summary>, joined; empty when there is no such block."""
    return "\n".join(match[2].strip() for match in _PROSE.finditer(answer[:MOST_TEXT]))
