"""What a model wants done, read from its answer: tool calls and final answers, in every form models use.

JSON (`{"action": {"tool": ..., "input": ...}}`, `{"answer": ...}`), the tags of MEM1 (`<search>`, `<query>`,
`<answer>`), and <tool_call> with JSON in it. Several calls are all kept, in order. Only a model's answer is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ctxmem.compressors.mem1.ops import MOST_TEXT, payload

ANSWER = "answer"
"""The name of the action that ends a task."""

MOST_ACTIONS = 8
"""Actions of one answer that are carried out."""

_BLOCK = re.compile(r"<(?P<tag>search|query|answer|tool_call|action)>(?P<body>.*?)(?:</(?P=tag)>|\Z)", re.S | re.I)
_THOUGHT = re.compile(r"<(think|is|summary)>.*?(?:</\1>|\Z)", re.S | re.I)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        tool: the tool's name; `answer` ends the task.
        arguments: by name; a plain text comes as `input`.
    """

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Its one argument as text; empty when it has none."""
        value = next(iter(self.arguments.values()), "")
        return value if isinstance(value, str) else _listed(value)


def read(answer: str) -> tuple[Action, ...]:
    """The actions in an answer, each once, in order.

    >>> read('{"ops": [], "action": {"tool": "search", "input": "Paris"}}')
    (Action(tool='search', arguments={'input': 'Paris'}),)
    >>> read("<think>hm</think><search>Paris</search>")[0].text
    'Paris'
    """
    answer = answer[:MOST_TEXT]
    outside = _THOUGHT.sub("", answer)
    found = (
        list(_tags(outside)) or list(_tags(answer)) or list(_wanted(payload(outside))) or list(_wanted(payload(answer)))
    )
    kept: list[Action] = []
    for action in found:
        if action not in kept:
            kept.append(action)
    return tuple(kept[:MOST_ACTIONS])


def _tags(answer: str) -> Iterator[Action]:
    for match in _BLOCK.finditer(answer):
        tag, body = match["tag"].lower(), match["body"].strip()
        if tag in ("tool_call", "action"):
            yield from _wanted(payload(body))
        elif body:
            yield Action(ANSWER if tag == "answer" else "search", {"input": body})


def _wanted(value: Any) -> Iterator[Action]:
    """The actions in decoded JSON; operations on the state are none."""
    if isinstance(value, list):
        for one in value:
            yield from _wanted(one)
    elif isinstance(value, dict):
        for key in ("action", "actions", "tool_calls"):
            yield from _wanted(value.get(key))
        if value.get("answer") not in (None, ""):
            yield Action(ANSWER, {"input": value["answer"]})
        name = value.get("tool") or value.get("name") or _function(value).get("name")
        if isinstance(name, str) and name:
            yield Action(name, _arguments(value))


def _arguments(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("arguments", "args", "parameters", "input"):
        given = value.get(key, _function(value).get(key))
        if isinstance(given, str) and key == "arguments" and given.lstrip()[:1] == "{":
            given = payload(given)
        if isinstance(given, dict):
            return {str(name): member for name, member in given.items()}
        if given is not None:
            return {"input": given}
    return {}


def _function(value: Mapping[str, Any]) -> Mapping[str, Any]:
    found = value.get("function")
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def answers(action: Action) -> tuple[str, ...]:
    """The answers in a final action: a JSON list, or a text split at semicolons, as in the paper."""
    value = next(iter(action.arguments.values()), "")
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        listed = payload(value)
        value = listed if isinstance(listed, list) else value
    parts = value if isinstance(value, list) else str(value).split(";")
    return tuple(str(part).strip() for part in parts)
