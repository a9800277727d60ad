"""The two published packages as rows: each in its own virtual environment (`bench/peers.sh`), asked through a pipe."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.peers import peers_folder

HERE = Path(__file__).parent
SCRIPTS = {"selective-context": "peer_selective.py", "llmlingua": "peer_llmlingua.py"}


class PeerFailed(Exception):
    """The package raised."""


@dataclass(slots=True)
class PeerProcess:
    """A package at work in a process of its own, started by the first request.

    Attributes:
        name: the package.
        model: folder of the language model it is given.
        process: once started.
        log: its standard error.
    """

    name: str
    model: Path
    process: subprocess.Popen[str] | None = None
    log: IO[str] | None = field(default=None, repr=False)

    def ask(self, do: str, **asked: object) -> dict[str, Any]:
        """Have it do something.

        Raises:
            PeerFailed: the package raised, or its process died.
        """
        process = self.process or self._start()
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise PeerFailed(f"{self.name} has no pipes")
        stdin.write(json.dumps({"do": do, **asked}) + "\n")
        stdin.flush()
        line = stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else {"error": f"{self.name} died; see {self._log_path()}"}
        if "error" in told:
            raise PeerFailed(told["error"])
        return told

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()
        for pipe in (self.process and self.process.stdout, self.log):
            if pipe is not None:
                pipe.close()

    def _start(self) -> subprocess.Popen[str]:
        self.log = self._log_path().open("w")
        argv = [str(python_of(self.name)), str(HERE / SCRIPTS[self.name]), str(self.model)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        return self.process

    def _log_path(self) -> Path:
        return peers_folder() / f"{self.name}.bench.log"


def python_of(name: str) -> Path:
    """Its interpreter, which is there once `bench/peers.sh` has run."""
    return peers_folder() / name / "bin" / "python"


def installed() -> list[str]:
    """The packages that are there."""
    return [name for name in SCRIPTS if python_of(name).exists()]
