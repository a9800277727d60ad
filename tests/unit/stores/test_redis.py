"""When a server is asked, and when it is left alone."""

from __future__ import annotations

from ctxmem.stores.redis import FAILURES, FIRST_SILENCE, LONGEST_SILENCE, Breaker


class Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def broken() -> tuple[Breaker, Clock]:
    """A breaker that has just found the server away."""
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed(FAILURES)
    return breaker, clock


def test_single_failures_silence_nothing() -> None:
    """A success in between starts the count again."""
    breaker = Breaker(Clock())
    for _ in range(5):
        for _ in range(FAILURES - 1):
            breaker.failed(1)
        assert breaker.allows()
        breaker.succeeded()


def test_failures_in_a_row_silence() -> None:
    """As many as the limit."""
    breaker = Breaker(Clock())
    for _ in range(FAILURES):
        assert breaker.allows()
        breaker.failed(1)
    assert not breaker.allows()


def test_after_the_silence_one_caller_tries() -> None:
    """The others wait for what it finds."""
    breaker, clock = broken()
    clock.now += FIRST_SILENCE
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_the_silence_doubles_up_to_a_limit() -> None:
    """A server that stays away is asked less and less."""
    breaker, clock = broken()
    silences = []
    for _ in range(6):
        waited = 0.0
        while not breaker.allows():
            clock.now += 1.0
            waited += 1.0
        silences.append(waited)
        breaker.failed(FAILURES)
    assert silences == [2, 4, 8, 16, 30, 30]
    assert silences[0] == FIRST_SILENCE
    assert silences[-1] == LONGEST_SILENCE


def test_a_recovered_server_starts_over() -> None:
    """Its next silence is the first again."""
    breaker, clock = broken()
    for _ in range(3):
        clock.now += LONGEST_SILENCE
        assert breaker.allows()
        breaker.failed(FAILURES)
    clock.now += LONGEST_SILENCE
    assert breaker.allows()
    breaker.succeeded()
    breaker.failed(FAILURES)
    clock.now += FIRST_SILENCE
    assert breaker.allows()
