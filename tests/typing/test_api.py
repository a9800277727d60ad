"""What users write type-checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "typing" / "mypy.ini"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy has read of libraries, so that it reads them once; empty at first."""
    return tmp_path_factory.mktemp("mypy")


def test_user_code_type_checks_strictly(cache: Path) -> None:
    """The public names carry the types that `api.py` states."""
    done = checked(ROOT / "tests" / "typing" / "api.py", cache)
    assert done.returncode == 0, done.stdout


def test_a_wrong_use_does_not_type_check(cache: Path, tmp_path: Path) -> None:
    """The types are seen at all: a misuse is an error."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from ctxmem import Budget\n\nlimit: str = Budget('many').limit\n")
    told = checked(wrong, cache).stdout
    assert "[arg-type]" in told
    assert "[assignment]" in told


def test_every_wrong_type_that_the_file_could_state_is_noticed(cache: Path, tmp_path: Path) -> None:
    """Libraries that are not read leave no public name untyped: each assertion fails with another type in it."""
    lines = (ROOT / "tests" / "typing" / "api.py").read_text().splitlines()
    stated = [at for at, line in enumerate(lines) if "assert_type(" in line]
    for at in stated:
        head, _, _ = lines[at].partition(", ")
        lines[at] = f"{head}, bytes)"
    wrong = tmp_path / "wrong_api.py"
    wrong.write_text("\n".join(lines))
    told = checked(wrong, cache).stdout
    assert stated
    assert told.count("[assert-type]") == len(stated), told


def checked(file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy on a file as if it stood in the checkout."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(CONFIG), "--cache-dir", str(cache), str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
