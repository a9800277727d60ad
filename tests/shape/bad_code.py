"""Bad snippets, each with the code that must stop it: at least one for every family that pyproject.toml selects."""

_HEAD = '"""A module."""\n'
_NESTED = "\n".join(f"    if x > {i}:\n        x += {i}" for i in range(9))
_RETURNS = "\n".join(f"    if x == {i}:\n        return {i}" for i in range(5))
_STATEMENTS = "\n".join(f"    x = x + {i}" for i in range(40))


def _function(body: str, *, head: str = "def f(x: int) -> int:", before: str = "", doc: str = "Do it.") -> str:
    """A module with one documented function of this body."""
    return f'{_HEAD}{before}\n\n{head}\n    """{doc}"""\n{body}\n'


RUFF: dict[str, str] = {
    "E501": f"{_HEAD}X = '{'x' * 130}'\n",
    "E741": _function("    l = x\n    return l"),
    "F401": f"{_HEAD}import os\n",
    "F821": _function("    return unknown"),
    "W291": f"{_HEAD}X = 1   \n",
    "I001": f"{_HEAD}import sys\nimport os\nprint(sys, os)\n",
    "UP006": f"{_HEAD}from typing import List\n\nX: List[int] = []\n",
    "B006": _function("    return y[0] + x", head="def f(x: int, *, y: list[int] = []) -> int:"),
    "B904": _function("    try:\n        return 1 // x\n    except ZeroDivisionError:\n        raise ValueError('x')"),
    "C400": f"{_HEAD}X = list(i for i in range(3))\n",
    "SIM102": _function("    if x:\n        if x > 2:\n            return 1\n    return x"),
    "RET505": _function("    if x:\n        return 1\n    else:\n        return 2"),
    "PERF401": _function("    y = []\n    for i in range(x):\n        y.append(i * 2)\n    return len(y)"),
    "RUF005": f"{_HEAD}X = [1]\nY = [0] + X\n",
    "RUF100": f"{_HEAD}X = 1  # noqa: E501\n",
    "C901": _function(f"{_NESTED}\n    return x"),
    "PLR0911": _function(f"{_RETURNS}\n    return x"),
    "PLR0912": _function(f"{_NESTED}\n    return x"),
    "PLR0913": f'{_HEAD}\n\ndef f(a: int, b: int, c: int, d: int, e: int, f: int, g: int) -> None:\n    """Do it."""\n',
    "PLR0915": _function(f"{_STATEMENTS}\n    return x"),
    "ANN001": f'{_HEAD}\n\ndef f(x) -> int:\n    """Do it."""\n    return 1\n',
    "ANN201": f'{_HEAD}\n\ndef f(x: int):\n    """Do it."""\n    return x\n',
    "D100": "X = 1\n",
    "D101": f"{_HEAD}\n\nclass Thing:\n    x = 1\n",
    "D103": f"{_HEAD}\n\ndef f(x: int) -> int:\n    return x\n",
    "D417": _function(
        "    return x + y", head="def f(x: int, y: int) -> int:", doc="Do it.\n\n    Args:\n        x: one."
    ),
    "N801": f'{_HEAD}\n\nclass bad_name:\n    """A class."""\n',
    "BLE001": _function("    try:\n        return 1 // x\n    except Exception:\n        return 0"),
    "S110": _function("    try:\n        x //= 1\n    except Exception:\n        pass\n    return x"),
    "TRY203": _function("    try:\n        return 1 // x\n    except ZeroDivisionError:\n        raise"),
    "TRY401": _function(
        "    try:\n        x //= x\n    except ZeroDivisionError as e:\n        log.exception(e)\n    return x",
        before="import logging\n\nlog = logging.getLogger('x')\n",
    ),
    "FBT001": _function("    return x if y else 0", head="def f(x: int, y: bool) -> int:"),
    "FBT003": _function("    return sorted([x], key)(True)"),
    "PGH003": f"{_HEAD}X: int = 'x'  # type: ignore\n",
    "ASYNC251": _function(
        "    time.sleep(x)\n    return x", head="async def f(x: int) -> int:", before="import time\n"
    ),
    "T201": f"{_HEAD}print('x')\n",
    "ERA001": f"{_HEAD}# x = compute(1)\n",
    "FIX002": f"{_HEAD}# TODO: later\n",  # the word is the point
    "TID252": f"{_HEAD}from . import plan\n\nX = plan\n",
    "TID253": f"{_HEAD}import torch\n\nX = torch\n",
}
"""By code, a module that has it. All are read as if they stood in `ctxmem/`."""

MYPY = """
def untyped(x):
    return x

def wrong() -> int:
    return "one"

def loose(x: list) -> None: ...
"""
MYPY_CODES = ("no-untyped-def", "return-value", "type-arg")

IMPORTS: dict[str, tuple[str, str]] = {
    "data flows down": ("ctxmem/plan.py", "import service"),
    "only lm knows torch": ("ctxmem/stores/__init__.py", "import torch"),
    "only stores know redis and sqlalchemy": ("ctxmem/compressors/__init__.py", "import sqlalchemy"),
    "only retrieval knows faiss": ("ctxmem/tokens/__init__.py", "import faiss"),
    "only tokens knows tokenizers": ("ctxmem/lm/__init__.py", "import tokenizers"),
    "the faces borrow": ("service/wire/__init__.py", "import sqlalchemy"),
    "only service knows the web": ("ctxmem/agents/__init__.py", "import fastapi"),
}
"""By contract of import-linter, a file and the line that breaks it there."""
