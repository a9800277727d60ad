"""Operations in their short form: lines, bare or in JSON."""

from __future__ import annotations

import json

import pytest

from ctxmem.compressors.mem1.ops import Op, parse


@pytest.mark.parametrize(
    ("line", "op"),
    [
        ("+ facts: Paris: the capital", Op("add", "facts", text="Paris: the capital")),
        ("+ facts 3: 42 seats", Op("add", "facts", text="42 seats", prio=3)),
        ("+ done: (1) Paris", Op("add", "done", text="(1) Paris")),
        ("+ nonsense: kept as a fact", Op("add", "facts", text="kept as a fact")),
        ("= i3: other words", Op("set", None, "i3", "other words")),
        ("= I3 done: Paris", Op("set", "done", "i3", "Paris")),
        ("~ i3 artifacts 2: PL-7", Op("set", "artifacts", "i3", "PL-7", 2)),
        ("- i4", Op("del", id="i4")),
        ("- i4 (settled)", Op("del", id="i4")),
    ],
)
def test_a_line_says_the_same_bare_and_in_json(line: str, op: Op) -> None:
    """In JSON it is valid as it stands; bare it is the third way to read an answer."""
    within, bare = parse(json.dumps({"ops": [line], "action": {"tool": "search", "input": "x"}})), parse(line)
    assert (within.ops, within.rung) == ((op,), 1)
    assert (bare.ops, bare.rung) == ((op,), 3)


@pytest.mark.parametrize(
    "line", ["", "Paris", "+ facts:", "+ facts: Error: 500 Internal Server Error", "- everything", "= 3: x"]
)
def test_a_line_that_is_no_operation_is_told(line: str) -> None:
    """And the operations beside it still count."""
    parsed = parse(json.dumps({"ops": [line, "+ facts: Paris"]}))
    assert "no operation" in parsed.error
    assert (parsed.rung, [op.text for op in parsed.ops]) == (2, ["Paris"])
