"""`python -m bench [NAME [OPTIONS]]`: one bench, or a short form of all of them, one after the other."""

from __future__ import annotations

import shlex
import subprocess
import sys

from bench.harness import ROOT

SHORT = {
    "prompt_cache": "--turns 30 100 --sets",
    "agents": "--world generated --sizes 2 8 --tasks 3",
    "gateway": "--rounds 3 --requests 200 --streams 10",
    "longchat": "--scripted --turns 150",
    "crash": "--rounds 6",
    "soak": "--minutes 1",
}
"""Each bench with the options of its short form, which needs no model and no real data."""


def main(arguments: list[str]) -> int:
    """Run what is named; returns the worst exit status."""
    if arguments and arguments[0] not in (known := benches()):
        print(f"no bench is called {arguments[0]!r}; there are {', '.join(known)}")
        return 2
    chosen = {arguments[0]: arguments[1:]} if arguments else {name: shlex.split(text) for name, text in SHORT.items()}
    return max(_run(name, options) for name, options in chosen.items())


def benches() -> list[str]:
    """The modules here that can be run."""
    files = sorted((ROOT / "bench").glob("[!_]*.py"))
    return [file.stem for file in files if "\nif __name__ ==" in file.read_text(encoding="utf-8")]


def _run(name: str, options: list[str]) -> int:
    argv = [sys.executable, "-m", f"bench.{name}", *options]
    print(f"$ {shlex.join(['python', *argv[1:]])}", flush=True)
    return subprocess.run(argv, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
