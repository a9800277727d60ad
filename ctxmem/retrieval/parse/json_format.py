"""JSON and JSON Lines, by the standard library's decoder: blocks are elements, led by the path to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ctxmem.errors import InvalidInput
from ctxmem.retrieval.parse.block import Block, Parsed, trimmed

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


def read(data: str, name: str) -> Parsed:
    """Read JSON: each element of an array, or each value of an object, is a block; other lines of JSON one each.

    Raises:
        InvalidInput: it is not JSON.
    """
    what = name or "the document"
    try:
        start = _after(data, 0)
        end = _value(data, start) if start < len(data) else start
        if _after(data, end) < len(data):
            return Parsed("json", data, tuple(_lines(data)))
        return Parsed("json", data, tuple(_elements(data, start)) or tuple(trimmed(data, start, end)))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is not JSON: {error}", param="text") from error


def _elements(data: str, start: int) -> Iterator[Block]:
    """What stands in an array or an object."""
    opening = data[start : start + 1]
    if opening not in ("[", "{"):
        return
    place, number = _after(data, start + 1), 0
    while data[place] not in "]}":
        first, lead = place, f"[{number}]"
        if opening == "{":
            lead, place = _decoder.raw_decode(data, place)
            place = _after(data, _after(data, place) + 1)
        place = _value(data, place)
        yield from trimmed(data, first, place, lead)
        place, number = _after(data, place), number + 1
        if data[place] == ",":
            place = _after(data, place + 1)


def _lines(data: str) -> Iterator[Block]:
    start = 0
    for number, line in enumerate(data.split("\n")):
        if line.strip():
            json.loads(line)
        yield from trimmed(data, start, start + len(line), f"[{number}]")
        start += len(line) + 1


def _value(data: str, start: int) -> int:
    """Where the value that starts here ends."""
    end: int = _decoder.raw_decode(data, start)[1]
    return end


def _after(data: str, place: int) -> int:
    """The next place that is no white space."""
    found = _SPACE.match(data, place)
    return found.end() if found else place
