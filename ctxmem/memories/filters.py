"""Filters over memories: a JSON object of conditions, in mem0's shape.

`{"topic": "user:live"}` is equality; `{"valid_from": {"gte": 1700000000}}` compares; `AND`, `OR` (lists) and `NOT`
combine. A name that is no field of a memory is a member of its metadata.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from ctxmem.errors import InvalidInput
from ctxmem.memory import Memory

Test = Callable[[Memory], bool]

_FIELDS = frozenset(
    "id user_id agent_id session_id text speaker topic status method valid_from valid_to recorded_at expires_at".split()  # noqa: SIM905
)
_DEEPEST = 8
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def compiled(filters: Mapping[str, Any] | None, depth: int = 0) -> Test:
    """The test that filters describe; no filters let everything pass.

    Raises:
        InvalidInput: an operator nobody knows, or conditions of the wrong type.
    """
    if filters is None:
        return lambda memory: True
    if not isinstance(filters, Mapping) or depth > _DEEPEST:
        raise InvalidInput(f"filters are objects, at most {_DEEPEST} deep", param="filters")
    tests = [_one(name, wanted, depth) for name, wanted in filters.items()]
    return lambda memory: all(test(memory) for test in tests)


def _one(name: str, wanted: Any, depth: int) -> Test:
    if name in ("AND", "OR"):
        if not isinstance(wanted, list):
            raise InvalidInput(f"{name} takes a list of filters", param=f"filters.{name}")
        tests = [compiled(each, depth + 1) for each in wanted]
        join = all if name == "AND" else any
        return lambda memory: join(test(memory) for test in tests)
    if name == "NOT":
        inner = compiled(wanted, depth + 1)
        return lambda memory: not inner(memory)
    conditions = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
    tests = [_condition(op, value, f"filters.{name}") for op, value in conditions.items()]
    return lambda memory: all(test(_value(memory, name)) for test in tests)


def _value(memory: Memory, name: str) -> Any:
    return getattr(memory, name) if name in _FIELDS else memory.metadata.get(name.removeprefix("metadata."))


def _condition(op: str, wanted: Any, param: str) -> Callable[[Any], bool]:
    if op in ("in", "nin") and not isinstance(wanted, list):
        raise InvalidInput(f"{op} takes a list", param=param)
    if op in _ORDER:
        return lambda value: _ordered(_ORDER[op], value, wanted)
    simple: dict[str, Callable[[Any], bool]] = {
        "eq": lambda value: value == wanted,
        "ne": lambda value: value != wanted,
        "in": lambda value: value in wanted,
        "nin": lambda value: value not in wanted,
        "contains": lambda value: isinstance(value, str | list) and str(wanted).casefold() in _members(value),
    }
    if op not in simple:
        raise InvalidInput(f"unknown operator {op!r}; known: {', '.join([*simple, *_ORDER])}", param=param)
    return simple[op]


def _members(value: str | list[Any]) -> str | list[str]:
    return value.casefold() if isinstance(value, str) else [str(each).casefold() for each in value]


def _ordered(compare: Callable[[Any, Any], bool], value: Any, wanted: Any) -> bool:
    """Whether two values stand in an order; those without one do not."""
    try:
        return value is not None and bool(compare(value, wanted))
    except TypeError:
        return False
