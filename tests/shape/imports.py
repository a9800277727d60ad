"""Runs import-linter and lists what an import loads, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def linted(root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages in `root`, with the contracts of its pyproject.toml."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return _run(command, root)


def loaded(*modules: str) -> set[str]:
    """Names of all modules in a fresh interpreter after it imported these, those of its start-up included."""
    done = _run([sys.executable, "-c", f"import sys, {', '.join(modules)}; print(*sys.modules)"], ROOT)
    assert done.returncode == 0, done.stdout
    return set(done.stdout.split())


def third_party(*modules: str) -> set[str]:
    """Top-level names that these imports load and that are neither Python's nor ours."""
    ours = {"ctxmem", "service"}
    new = loaded(*modules) - loaded("sys")
    return {name.partition(".")[0] for name in new} - ours - set(sys.stdlib_module_names)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
