"""The circuit breaker alone, with a clock that the test turns."""

from __future__ import annotations

import pytest

from service.errors import UpstreamPaused
from service.upstream.breaker import LEAST, PAUSE_S, Breaker


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(clock: Clock) -> Breaker:
    """A breaker that has just seen too many failures."""
    breaker = Breaker("up", clock=clock)
    for _ in range(LEAST):
        breaker.check()
        breaker.failed()
    return breaker


def test_failures_open_it_and_the_refusal_says_for_how_long(opened: Breaker) -> None:
    """Requests are refused at once."""
    assert opened.open
    with pytest.raises(UpstreamPaused) as refused:
        opened.check()
    assert refused.value.retry_after == PAUSE_S


def test_after_the_pause_one_probe_goes_through(opened: Breaker, clock: Clock) -> None:
    """Others wait for its outcome; when it succeeds, all is forgotten."""
    clock.now += PAUSE_S + 1
    opened.check()
    with pytest.raises(UpstreamPaused):
        opened.check()
    opened.succeeded()
    opened.failed()
    opened.check()


def test_a_probe_that_fails_opens_it_again(opened: Breaker, clock: Clock) -> None:
    """One failure after the pause is enough."""
    clock.now += PAUSE_S + 1
    opened.check()
    opened.failed()
    clock.now += 1
    assert opened.open


def test_few_failures_among_successes_do_not_open_it(clock: Clock) -> None:
    """It takes half of what is remembered."""
    breaker = Breaker("up", clock=clock)
    for i in range(60):
        breaker.failed() if i % 3 == 0 else breaker.succeeded()
        breaker.check()
