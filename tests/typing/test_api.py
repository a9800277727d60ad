"""What users write type-checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy has read of libraries, so that it reads them once; empty at first."""
    return tmp_path_factory.mktemp("mypy")


def test_user_code_type_checks_strictly(cache: Path) -> None:
    """The public names carry the types that `api.py` states."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "tests/typing/api.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout


def test_a_wrong_use_does_not_type_check(cache: Path, tmp_path: Path) -> None:
    """The types are seen at all: a misuse is an error."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from ctxmem import Budget\n\nlimit: str = Budget('many').limit\n")
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", cache, wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "[arg-type]" in done.stdout
    assert "[assignment]" in done.stdout
