"""Items of LangGraph's store at rest: how one is named and written down, and whether a filter wants it."""

from __future__ import annotations

import base64
import json
import operator
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxmem.errors import InvalidInput

_MINUTE = 60.0
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One item.

    Attributes:
        namespace: labels, outermost first.
        key: its name there.
        value: what the caller put.
        created: seconds since the epoch.
        updated: the same, of the last put.
        minutes: how long it lives after it was used; None for ever.
        until: when it ends, in seconds since the epoch; None for never.
        vectors: of the texts it is found by.
    """

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created: float
    updated: float
    minutes: float | None = None
    until: float | None = None
    vectors: tuple[tuple[float, ...], ...] = ()

    def used(self, now: float) -> Kept:
        """The item with its whole life before it."""
        return replace(self, until=None if self.minutes is None else now + self.minutes * _MINUTE)

    def packed(self) -> bytes:
        """The item as bytes.

        Raises:
            InvalidInput: the value is not JSON.
        """
        vectors = [base64.b64encode(array("f", vector).tobytes()).decode() for vector in self.vectors]
        fields = {
            "v": self.value,
            "c": self.created,
            "u": self.updated,
            "m": self.minutes,
            "e": self.until,
            "x": vectors,
        }
        try:
            return json.dumps({name: field for name, field in fields.items() if field is not None}).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the value of {self.key!r} is not JSON: {error}", param="value") from error


def unpacked(name: str, body: bytes) -> Kept:
    """The item behind a name."""
    *labels, key = _parted(name)
    fields = json.loads(body)
    vectors = tuple(tuple(array("f", base64.b64decode(vector))) for vector in fields["x"])
    times = (fields["c"], fields["u"], fields.get("m"), fields.get("e"))
    return Kept(tuple(labels), key, fields["v"], *times, vectors)


def under(namespace: Sequence[str]) -> str:
    """How the names of all items of a namespace and those below it begin; no label has a dot."""
    return "".join(f"{label}." for label in namespace)


def named(namespace: Sequence[str], key: str) -> str:
    """An item's name: the first empty label ends the namespace.

    Raises:
        InvalidInput: a database cannot keep it as text.
    """
    name = f"{under(namespace)}.{key}"
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{key!r} in {tuple(namespace)} is not text: {error}", param="key") from error
    if "\0" in name:
        raise InvalidInput(f"{key!r} has a NUL character", param="key")
    return name


def _parted(name: str) -> list[str]:
    if name.startswith("."):
        return [name[1:]]
    labels, _, key = name.partition("..")
    return [*labels.split("."), key]


def wanted(value: Any, condition: Any) -> bool:
    """Whether a filter takes a value: operators begin with `$`, other mappings are compared field by field.

    Raises:
        InvalidInput: an unknown operator.
    """
    if isinstance(condition, Mapping):
        if any(name.startswith("$") for name in condition):
            return all(_compared(value, name, other) for name, other in condition.items())
        return isinstance(value, Mapping) and all(wanted(value.get(name), each) for name, each in condition.items())
    if isinstance(condition, list | tuple):
        same = isinstance(value, list) and len(value) == len(condition)
        return same and all(map(wanted, value, condition))
    return bool(value == condition)


def _compared(value: Any, name: str, other: Any) -> bool:
    if name in ("$eq", "$ne"):
        return bool(value == other) is (name == "$eq")
    if name not in _ORDERS:
        raise InvalidInput(f"unsupported operator {name!r}", param="filter")
    try:
        return _ORDERS[name](float(value), float(other))
    except (TypeError, ValueError):
        return isinstance(value, str) and isinstance(other, str) and _ORDERS[name](value, other)


def likeness(vector: Sequence[float], kept: Kept) -> float | None:
    """Cosine with the nearest of an item's vectors; None when it has none of this length."""
    found = [_cosine(vector, one) for one in kept.vectors if len(one) == len(vector)]
    return max(found) if found else None


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    lengths = sum(map(operator.mul, a, a)) * sum(map(operator.mul, b, b))
    return float(sum(map(operator.mul, a, b)) / lengths**0.5) if lengths else 0.0
