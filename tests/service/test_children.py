"""Processes under watch, with small Python programs as children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from service.children import FIRST_PAUSE, LONGEST_PAUSE, STEADY, Child, Watch

SLEEPER = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({!r}, 'w').close(); time.sleep(60)"
SUPERVISOR = """
import sys, time
from service.children import Child
child = Child("sleeper", (sys.executable, "-c", "import time; time.sleep(60)"))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Mortal:
    """A child without a process, that lives and dies when told."""

    name: str = "mortal"
    pid: int | None = None
    alive: bool = False
    starts: list[float] = field(default_factory=list)
    now: float = 0.0

    def start(self) -> None:
        self.alive = True
        self.starts.append(self.now)

    def running(self) -> bool:
        return self.alive

    def stop(self) -> None:
        self.alive = False

    def kill(self) -> None:
        self.alive = False


@pytest.fixture
def mortal() -> Mortal:
    return Mortal()


def tend(watch: Watch, mortal: Mortal, now: float) -> None:
    """Look after the child at a time of our choosing."""
    mortal.now = now
    watch.clock = lambda: now
    watch.tend()


class TestWatch:
    def test_a_child_is_started_at_the_first_look(self, mortal: Mortal) -> None:
        """Nothing runs before the supervisor looks after it."""
        watch = Watch(mortal, lambda line: None)
        tend(watch, mortal, 1.0)
        assert mortal.alive

    def test_a_dead_child_comes_back_after_a_pause_and_is_reported(self, mortal: Mortal) -> None:
        """The death is told once; the new start waits for its pause."""
        told: list[str] = []
        watch = Watch(mortal, told.append)
        tend(watch, mortal, 0.0)
        mortal.alive = False
        tend(watch, mortal, 1.0)
        tend(watch, mortal, 1.0 + FIRST_PAUSE / 2)
        assert not mortal.alive
        tend(watch, mortal, 1.0 + FIRST_PAUSE)
        assert mortal.alive
        assert watch.deaths == 1
        assert told == ["mortal died; starting it again in 0.2 s"]

    def test_pauses_double_up_to_a_limit(self, mortal: Mortal) -> None:
        """A child that dies at once is not started in a tight loop."""
        watch, now, pauses = Watch(mortal, lambda line: None), 0.0, []
        tend(watch, mortal, now)
        for _ in range(10):
            mortal.alive = False
            tend(watch, mortal, now)
            died = now
            while not mortal.alive:
                now += 0.1
                tend(watch, mortal, now)
            pauses.append(now - died)
        assert pauses == sorted(pauses)
        assert pauses[0] == pytest.approx(FIRST_PAUSE, abs=0.11)
        assert pauses[-1] == pytest.approx(LONGEST_PAUSE, abs=0.11)

    def test_a_steady_life_is_forgiven(self, mortal: Mortal) -> None:
        """After a long good life the pause is the first one again."""
        watch = Watch(mortal, lambda line: None)
        tend(watch, mortal, 0.0)
        for now in (1.0, 2.0, 4.0):
            mortal.alive = False
            tend(watch, mortal, now)
            tend(watch, mortal, now + LONGEST_PAUSE)
        tend(watch, mortal, 20.0 + LONGEST_PAUSE + STEADY)
        mortal.alive = False
        tend(watch, mortal, 50.0)
        tend(watch, mortal, 50.0 + FIRST_PAUSE)
        assert mortal.alive


class TestChild:
    def test_it_stops_when_asked(self) -> None:
        """SIGTERM ends a child that listens, and its status is collected."""
        child = Child("sleeper", (sys.executable, "-c", SLEEPER))
        child.start()
        assert child.running()
        child.stop()
        assert not child.running()
        assert child.pid is not None
        assert not psutil.pid_exists(child.pid)

    def test_a_deaf_one_is_killed_after_its_grace(self, tmp_path: Path) -> None:
        """A child that ignores SIGTERM gets its grace and not more."""
        deaf = tmp_path / "deaf"
        child = Child("stubborn", (sys.executable, "-c", STUBBORN.format(str(deaf))), grace=0.3)
        child.start()
        until(deaf.exists)
        asked = time.monotonic()
        child.stop()
        assert not child.running()
        assert time.monotonic() - asked >= 0.3

    def test_it_gets_the_environment_it_was_given(self, tmp_path: Path) -> None:
        """Settings travel by environment."""
        out = tmp_path / "seen"
        program = f"import os, pathlib; pathlib.Path({str(out)!r}).write_text(os.environ['CTXMEM_PORT'])"
        child = Child("reader", (sys.executable, "-c", program), environment={**os.environ, "CTXMEM_PORT": "8788"})
        child.start()
        until(lambda: not child.running())
        assert out.read_text() == "8788"

    def test_it_leads_its_own_process_group(self) -> None:
        """Ctrl-C in a terminal goes to the supervisor's group only."""
        child = Child("sleeper", (sys.executable, "-c", SLEEPER))
        child.start()
        assert child.pid is not None
        try:
            until(lambda: os.getpgid(child.pid or 0) == child.pid)
        finally:
            child.stop()

    @pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
    def test_it_dies_with_a_killed_supervisor(self) -> None:
        """No orphan keeps a port or a database open after `kill -9` of the supervisor."""
        with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True) as supervisor:
            assert supervisor.stdout is not None
            child = int(supervisor.stdout.readline())
            assert psutil.pid_exists(child)
            supervisor.send_signal(signal.SIGKILL)
        until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
