"""`ctxmem ingest` and `ctxmem search` without a service, on a database of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ctxmem.cli.app import app


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--data-dir", str(folder / "data"), *words])


def told(folder: Path, *words: str) -> Any:
    done = run(folder, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.slow
def test_files_are_put_in_and_found(tmp_path: Path) -> None:
    """Again they cost nothing; what is no text is named, and an error where it was asked for itself."""
    files = tmp_path / "files"
    (files / ".git").mkdir(parents=True)
    (files / ".git" / "config.txt").write_text("hidden")
    (files / "tram.md").write_text("# Trams\n\nThe tram to the harbour stops at nine.")
    (files / "cat.txt").write_text("A kitten sleeps on the warm windowsill.")
    (files / "binary.txt").write_bytes(b"\x00\x01\x02")
    done = {Path(row["path"]).name: row for row in told(tmp_path, "ingest", str(files))}
    assert done.keys() == {"binary.txt", "cat.txt", "tram.md"}
    assert done["binary.txt"]["refused"] and done["cat.txt"]["written"] == 1
    assert [row["written"] for row in told(tmp_path, "ingest", str(files / "cat.txt"))] == [0]
    found = told(tmp_path, "search", "where does a small cat nap?", "-k", "1")
    assert [Path(one["document_id"]).name for one in found["results"]] == ["cat.txt"]
    people = run(tmp_path, "search", "tram", "--user", "ann")
    assert people.exit_code == 0 and "harbour" in people.stdout
    assert run(tmp_path, "ingest", str(files / "binary.txt")).exit_code == 2
    assert run(tmp_path, "ingest", str(files / "gone.txt")).exit_code != 0
    assert told(tmp_path, "search", "cat", "-n", "elsewhere")["results"] == []
