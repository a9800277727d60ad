"""A circuit breaker: after too many failures an upstream is left alone for a while, then tried once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from service.errors import UpstreamPaused

WINDOW = 20
"""Outcomes remembered."""
LEAST = 5
"""Failures that a judgement takes."""
PAUSE_S = 5.0
"""Seconds an upstream is left alone."""


class Breaker:
    """Watches the connection failures and timeouts of one upstream; statuses it answers with are its own business.

    Args:
        name: the upstream, for the error.
        clock: seconds that only go forward.
    """

    def __init__(self, name: str, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._clock = clock
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._open_until = 0.0

    @property
    def open(self) -> bool:
        """Whether requests are refused now."""
        return self._clock() < self._open_until

    def check(self) -> None:
        """Let a request through, or refuse it. The first one after a pause is the probe; others wait for its outcome.

        Raises:
            UpstreamPaused: the upstream is being left alone.
        """
        if self.open:
            wait = self._open_until - self._clock()
            raise UpstreamPaused(f"upstream {self._name} failed too often and is left alone", retry_after=wait)
        if self._open_until:
            self._open_until = self._clock() + PAUSE_S

    def succeeded(self) -> None:
        """Note an answer, whatever its status."""
        if self._open_until:
            self._outcomes.clear()
            self._open_until = 0.0
        self._outcomes.append(True)

    def failed(self) -> None:
        """Note a failure; half of the remembered outcomes, and at least five, open the breaker."""
        self._outcomes.append(False)
        failures = self._outcomes.count(False)
        if failures >= LEAST and 2 * failures >= len(self._outcomes):
            self._open_until = self._clock() + PAUSE_S
