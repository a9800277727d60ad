"""The commands that README.md promises are there, and CI runs the same ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["install", "run", "demo", "check", "test", "test-all", "bench", "clean"])
def test_make_knows_the_target(target: str) -> None:
    """Each can be planned: its recipe and what it needs exist."""
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_default_tests_leave_the_slow_ones_out() -> None:
    """`make test` is for every change; `make test-all` takes its time."""
    planned = {
        target: subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
        for target in ("test", "test-all")
    }
    assert "not slow" in planned["test"]
    assert "not slow" not in planned["test-all"]


def test_ci_runs_the_gates_and_the_tests_of_the_makefile() -> None:
    """Nothing passes in CI that fails on a laptop, nor the other way round."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], timeout=60).returncode == 0
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert {"make check", "make test"} <= set(lines)
