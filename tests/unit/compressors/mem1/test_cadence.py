"""When `auto` consolidates: where there is no room, if the task as a whole comes out no dearer for it."""

from __future__ import annotations

from math import inf

import pytest

from ctxmem.compressors.mem1.cadence import Cadence, Course, Now, cadence
from ctxmem.errors import InvalidInput
from ctxmem.ledger import CacheTerms

AUTO = Cadence(cap=1600)


def now(tokens: int, remaining: float = inf, *, state: int = 100, course: Course | None = None) -> Now:
    return Now(max(1, tokens // 350), tokens, state, remaining, course or Course(AUTO, largest=350))


def test_a_prompt_with_room_is_left_alone() -> None:
    """Until state, tail and one more turn fill it; a tail that is too large by itself goes whatever it costs."""
    assert not AUTO.due(now(1100))
    assert AUTO.due(now(1200))
    assert not AUTO.due(now(1200, 1))
    assert AUTO.due(now(1601, 1))


def test_a_large_turn_is_expected_again() -> None:
    """Room is kept for it."""
    assert AUTO.due(now(800, course=Course(AUTO, largest=750)))
    assert not AUTO.due(now(800))


def test_the_end_of_a_short_task_waits_and_that_of_a_long_one_does_not() -> None:
    """What was saved before pays for it."""
    rich = Course(AUTO, 350, dropped=5000, saved=1000.0)
    poor = Course(AUTO, 350, dropped=0, saved=-300.0)
    assert AUTO.due(now(1200, 2, course=rich))
    assert not AUTO.due(now(1200, 2, course=poor))
    assert AUTO.due(now(1200, 20, course=poor))


def test_a_course_counts_what_dropped_turns_would_have_cost() -> None:
    """And what the consolidation that dropped them did."""
    course = Course(AUTO)
    course.turn(300)
    course.turn(200)
    assert (course.largest, course.saved) == (300, 0.0)
    course.cut(500, 100)
    paid = AUTO.price(100)
    assert course.saved == pytest.approx(-paid)
    course.turn(300)
    assert course.saved == pytest.approx(0.1 * 500 - paid)


def test_without_a_cache_a_tail_pays_at_once() -> None:
    """Every token is read at full price again."""
    dear = Cadence(terms=CacheTerms(kind="none"), cap=1600)
    course = Course(dear, largest=350)
    assert dear.price(100) == dear.output * dear.written
    assert dear.due(Now(2, 700, 100, 10, course))
    assert not AUTO.due(now(700, 10))


@pytest.mark.parametrize("kind", ["every_turn", "every=2", "tokens>300"])
def test_the_other_cadences_do_not_count_costs(kind: str) -> None:
    """Nor does any consolidate nothing."""
    rule = cadence(kind, cap=100)
    assert rule.due(now(700, 1))
    assert not rule.due(Now(0, 0, 100, 5, Course(rule)))


def test_a_cadence_is_one_of_four() -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidInput, match="cadence"):
        cadence("sometimes", cap=100)
