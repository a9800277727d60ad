"""Imports point one way: the contracts of pyproject.toml, checked by import-linter."""

from __future__ import annotations

from tests.shape.imports import linted


def test_every_import_contract_is_kept() -> None:
    """The layers of docs/architecture.md hold, and each foreign library stays in its one home."""
    done = linted()
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
