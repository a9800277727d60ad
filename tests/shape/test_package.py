"""What is shipped: the wheel holds every file of the packages, works alone, and declares what its extras import."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = [need for needs in CONFIG["project"]["optional-dependencies"].values() for need in needs]
DEV = CONFIG["dependency-groups"]["dev"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    """Migrations, prompts and the demo's conversation are data that the code reads: they ship with it."""
    packages = (ROOT / "ctxmem", ROOT / "service")
    wanted = {path for folder in packages for path in folder.rglob("*") if path.is_file()}
    names = {path.relative_to(ROOT).as_posix() for path in wanted if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        assert names <= set(archive.namelist())


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    """No tests, benches or documents end up in somebody's site-packages."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ctxmem", "service"}


def test_the_base_install_needs_nothing(wheel: Path) -> None:
    """Every requirement belongs to an extra."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        needs = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    assert needs
    assert [need for need in needs if "extra ==" not in need] == []


def test_torch_is_pinned(wheel: Path) -> None:
    """No requirement lets the installer choose another build of torch."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        needs = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    pins = {need.partition(";")[0].strip() for need in needs if need.startswith("torch")}
    makefile = (ROOT / "Makefile").read_text()
    assert pins == {"torch==2.13.0"}
    assert f"TORCH := {pins.pop()}\n" in makefile


def test_the_wheel_imports_without_site_packages(wheel: Path) -> None:
    """Straight from the archive, in an interpreter that sees Python's own library and nothing else."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import ctxmem; print(ctxmem.__version__, ctxmem.__file__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(wheel) in done.stdout


@pytest.mark.parametrize(
    ("folders", "declared"),
    [(("ctxmem", "service"), EXTRAS), (("tests", "bench"), [*EXTRAS, *DEV])],
    ids=["product", "tests and benches"],
)
def test_every_import_is_declared(folders: tuple[str, ...], declared: list[str]) -> None:
    """What the code imports, pyproject.toml names: nothing is there only because something else happens to need it."""
    known = {distribution(need) for need in declared}
    imported = {name for folder in folders for path in (ROOT / folder).rglob("*.py") for name in imports(path)}
    foreign = imported - {"ctxmem", "service", "tests", "bench"} - set(sys.stdlib_module_names)
    makers = packages_distributions()
    assert {name for name in foreign if not known & {distribution(d) for d in makers.get(name, [])}} == set()


def imports(path: Path) -> Iterable[str]:
    """Top-level names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def distribution(requirement: str) -> str:
    """The normalised name at the head of a requirement."""
    name = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name[0] if name else "").lower()
