"""Every gate fires. A rule that nobody has seen fail may have stopped running long ago."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

from tests.shape.bad_code import IMPORTS, MYPY, MYPY_CODES, RUFF
from tests.shape.imports import ROOT, linted
from tests.shape.rules import EVERYWHERE, IN_THE_PRODUCT, Rule, Source

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

BAD_SHAPES: dict[str, tuple[str, str]] = {
    "short_file": ("ctxmem/long.py", "X = 1\n" * 301),
    "short_functions": ("ctxmem/long.py", "def f():\n" + "    x = 1\n" * 40),
    "narrow_classes": ("ctxmem/wide.py", "class C:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(13))),
    "telling_names": ("ctxmem/string_utils.py", ""),
    "no_mixins": ("ctxmem/mixed.py", "class StoreMixin: ...\n"),
    "absolute_imports": ("ctxmem/near.py", "from .plan import layout\n"),
    "open_failures": ("ctxmem/open.py", "try:\n    f()\nexcept (ValueError, Exception) as e:\n    log(e)\n"),
    "settings_only": ("ctxmem/env.py", "import os\nKEY = os.environ['KEY']\n"),
}


def ruff(*command: str, text: str, name: str = "ctxmem/bad.py") -> subprocess.CompletedProcess[str]:
    """Run ruff with our configuration on a text as if it stood in this file."""
    full = [sys.executable, "-m", "ruff", *command, "--no-cache", "--stdin-filename", name, "-"]
    return subprocess.run(full, cwd=ROOT, input=text, text=True, capture_output=True, timeout=60)


def codes(text: str, name: str = "ctxmem/bad.py") -> set[str]:
    """The ruff codes of a text."""
    return {found["code"] for found in json.loads(ruff("check", "--output-format=json", text=text, name=name).stdout)}


class TestRuff:
    @pytest.mark.parametrize("code", RUFF)
    def test_a_bad_snippet_is_caught(self, code: str) -> None:
        """Each snippet raises the code it was written for."""
        assert code in codes(RUFF[code])

    @pytest.mark.parametrize("family", CONFIG["ruff"]["lint"]["select"])
    def test_every_selected_family_has_a_snippet(self, family: str) -> None:
        """A family that is selected but never seen to fire would pass unnoticed."""
        assert any(code.startswith(family) for code in RUFF)

    def test_good_code_passes(self) -> None:
        """The gate is not simply shut."""
        assert codes('"""A module."""\n\nLIMIT = 3\n') == set()

    def test_torch_is_welcome_in_its_one_home(self) -> None:
        """`ctxmem/lm` may import torch where every other module may not."""
        assert "TID253" not in codes(RUFF["TID253"], name="ctxmem/lm/bad.py")

    def test_a_bad_layout_is_caught(self) -> None:
        """`ruff format --check` refuses what it would write otherwise."""
        assert ruff("format", "--check", text="x = { 'a':1 }\n").returncode == 1


def test_mypy_is_strict(tmp_path: Path) -> None:
    """Untyped, wrongly typed and loosely typed code each has its error."""
    bad = tmp_path / "bad.py"
    bad.write_text(MYPY)
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path, bad]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120).stdout
    assert all(f"[{code}]" in said for code in MYPY_CODES), said


class TestImports:
    @pytest.mark.parametrize("contract", IMPORTS)
    def test_a_forbidden_import_breaks_its_contract(self, contract: str, tmp_path: Path) -> None:
        """A copy of the packages with one import more is refused, by the contract meant for it."""
        for name in ("ctxmem", "service"):
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        file, line = IMPORTS[contract]
        (tmp_path / file).write_text(f"{(tmp_path / file).read_text()}\n{line}\n")
        done = linted(tmp_path)
        assert done.returncode == 1, done.stdout
        assert f"{contract} BROKEN" in done.stdout

    def test_every_contract_has_been_seen_to_break(self) -> None:
        """The table above names each contract of pyproject.toml."""
        assert {contract["name"] for contract in CONFIG["importlinter"]["contracts"]} == set(IMPORTS)


class TestShape:
    @pytest.mark.parametrize("rule", [*EVERYWHERE, *IN_THE_PRODUCT], ids=lambda rule: rule.__name__)
    def test_a_bad_shape_is_caught(self, rule: Rule) -> None:
        """Each rule finds the fault it is there for."""
        name, text = BAD_SHAPES[rule.__name__]
        assert list(rule(Source(name, text, ast.parse(text))))

    @pytest.mark.parametrize("rule", [*EVERYWHERE, *IN_THE_PRODUCT], ids=lambda rule: rule.__name__)
    def test_a_good_shape_passes(self, rule: Rule) -> None:
        """And finds nothing in a file without fault."""
        text = "try:\n    f()\nexcept BaseException:\n    undo()\n    raise\n"
        assert not list(rule(Source("ctxmem/good.py", text, ast.parse(text))))


class TestSuite:
    def test_an_address_outside_is_refused(self, refused: list[str]) -> None:
        """A connection to another machine fails before a packet leaves."""
        with socket.socket() as outside, pytest.raises(OSError, match="tests may not reach"):
            outside.connect(("192.0.2.1", 80))
        refused.clear()

    def test_a_name_outside_is_not_looked_up(self, refused: list[str]) -> None:
        """Nor is a name server asked."""
        with pytest.raises(OSError, match="tests may not reach"):
            socket.getaddrinfo("host.example", 80)
        refused.clear()

    def test_this_machine_may_be_reached(self) -> None:
        """Servers that tests start stay in reach."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
            assert here.getpeername() == server.getsockname()

    def test_a_warning_is_an_error(self) -> None:
        """What a library warns of today breaks tomorrow."""
        with pytest.raises(DeprecationWarning):
            warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
