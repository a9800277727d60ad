"""What users write type-checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_user_code_type_checks_strictly(tmp_path: Path) -> None:
    """The public names carry the types that `api.py` states."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "tests/typing/api.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout


def test_a_wrong_use_does_not_type_check(tmp_path: Path) -> None:
    """The types are seen at all: a misuse is an error."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from ctxmem import Budget\n\nlimit: str = Budget('many').limit\n")
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path, wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert "[arg-type]" in done.stdout
    assert "[assignment]" in done.stdout
