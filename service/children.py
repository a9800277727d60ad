"""Child processes under watch: started, restarted with growing pauses when they die, stopped in good order.

Knows nothing of what the children do. A child leads its own process group, so that Ctrl-C in a terminal reaches the
supervisor alone, and on Linux the kernel kills it when the supervisor dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ctxmem.errors import Unavailable

FIRST_PAUSE = 0.2
"""Seconds before a child that died is started again."""
LONGEST_PAUSE = 10.0
"""Seconds that the pause may grow to by doubling."""
STEADY = 10.0
"""Seconds of life after which a child is taken to be well, and its pause starts over."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Runnable(Protocol):
    """What can be watched: a process, or a server that has one."""

    @property
    def name(self) -> str: ...

    def start(self) -> None: ...
    def running(self) -> bool: ...
    def stop(self) -> None:
        """Ask it to end, wait for its grace, then end it."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


@dataclass(slots=True)
class Child:
    """One process.

    Attributes:
        name: what messages call it.
        argv: program and arguments.
        environment: its variables; None for the supervisor's own.
        grace: seconds between SIGTERM and SIGKILL.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] | None = None
    grace: float = 10.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._process = subprocess.Popen(
            list(self.argv),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            process_group=0,
            preexec_fn=_die_with(os.getpid()),  # the supervisor has one thread, so this is safe
        )

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


@dataclass(slots=True)
class Watch:
    """Keeps one child alive.

    Attributes:
        child: whom.
        report: takes a line when something happens.
        clock: seconds, never going back.
        deaths: how often it died, in all.
    """

    child: Runnable
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    deaths: int = 0
    _pause: float = FIRST_PAUSE
    _since: float = 0.0
    _due: float | None = 0.0

    def tend(self) -> None:
        """Look after the child once: start it when it is due, note its death, forgive it after a steady life."""
        now = self.clock()
        if self._due is not None:
            if now >= self._due:
                self._start(now)
        elif not self.child.running():
            self._mourn(now)
        elif now - self._since >= STEADY:
            self._pause = FIRST_PAUSE

    def _start(self, now: float) -> None:
        self._since, self._due = now, None
        try:
            self.child.start()
        except (OSError, Unavailable) as error:
            self.report(str(error))

    def _mourn(self, now: float) -> None:
        self.deaths += 1
        self.report(f"{self.child.name} died; starting it again in {self._pause:g} s")
        self._due, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE)


def _die_with(supervisor: int) -> Callable[[], None]:
    """What a child does between fork and exec: on Linux, ask to be killed when the supervisor dies."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def settle() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(1)

    return settle
