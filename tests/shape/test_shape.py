"""Every file of the repository has the shape that CONTRIBUTING.md asks for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.shape.rules import EVERYWHERE, IN_THE_PRODUCT, Rule, Source, read

ROOT = Path(__file__).parents[2]
PRODUCT = ("ctxmem", "service")
HOUSE = (*PRODUCT, "tests", "bench", "examples")


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """The Python files of these folders, parsed."""
    return tuple(read(ROOT, path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


@pytest.mark.parametrize("rule", EVERYWHERE, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule: Rule) -> None:
    """Product, tests, benches and examples are held to the same sizes and names."""
    wrong = [finding for source in sources(*HOUSE) for finding in rule(source)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("rule", IN_THE_PRODUCT, ids=lambda rule: rule.__name__)
def test_the_product_keeps_the_rule(rule: Rule) -> None:
    """What ships fails open in one place and reads the environment in one place."""
    wrong = [finding for source in sources(*PRODUCT) for finding in rule(source)]
    assert not wrong, "\n".join(wrong)
