"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import ctxmem

NEEDS_TORCH = ("ctxmem.lm",)
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(ctxmem.__path__, "ctxmem.")
    if not name.startswith(NEEDS_TORCH) and "migrations" not in name and not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str):
    """Each example prints what it says it prints."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
