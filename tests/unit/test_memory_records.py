"""When a memory holds: in the world's time, and as far as it has not expired."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxmem.memory import Memory, Scope

HELD = Memory("mem_1", "alice", "", "s", "I live in Rome", valid_from=10.0, valid_to=20.0, status="superseded")
HOLDS = replace(HELD, valid_to=None, status="active")


@pytest.mark.parametrize(("at", "holds"), [(9.9, False), (10.0, True), (19.9, True), (20.0, False), (None, False)])
def test_what_was_superseded_holds_in_its_interval(at: float | None, holds: bool) -> None:
    """From its first moment on, up to and without its last."""
    assert HELD.holds(at, now=100.0) is holds


@pytest.mark.parametrize(("at", "holds"), [(9.9, False), (10.0, True), (1e9, True), (None, True)])
def test_what_is_active_holds_from_its_beginning_on(at: float | None, holds: bool) -> None:
    """Without an end it holds now."""
    assert HOLDS.holds(at, now=100.0) is holds


@pytest.mark.parametrize(("valid_to", "holds"), [(99.0, False), (100.0, False), (101.0, True)])
def test_what_ends_by_itself_holds_until_then(valid_to: float, holds: bool) -> None:
    """An end that was known from the start needs nobody to supersede it."""
    assert replace(HOLDS, valid_to=valid_to).holds(None, now=100.0) is holds


@pytest.mark.parametrize("at", [None, 15.0])
def test_what_has_expired_does_not_hold(at: float | None) -> None:
    """At no moment, that of its expiry included."""
    assert replace(HOLDS, expires_at=101.0).holds(at, now=100.0)
    assert not replace(HOLDS, expires_at=100.0).holds(at, now=100.0)


def test_a_scope_is_that_of_the_memory() -> None:
    """Empty when it names nobody."""
    assert HELD.scope == Scope("alice", session_id="s")
    assert Scope().empty
    assert not HELD.scope.empty
