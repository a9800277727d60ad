"""The documents name what exists: a setting, transform, command, route or header without its row turns a test red."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main
from msgspec import structs
from msgspec.structs import FieldInfo
from starlette.testclient import TestClient

import ctxmem
from ctxmem.cli.app import app as cli
from ctxmem.errors import ConfigError, CtxmemError, TransformError
from ctxmem.policy import POLICIES
from ctxmem.registry import TRANSFORMS, resolve
from service import errors
from service.app import create_app
from service.errors import ServiceError
from service.settings import PREFIX, Settings, Upstream

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
CLI = (ROOT / "docs" / "cli.md").read_text()

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TARGET = re.compile(r"\bmake (?P<target>[a-z][a-z-]+)")
HEADER = re.compile(r"x-ctxmem-[a-z]+(?:-[a-z]+)*")
PYTHON = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL)

# Put together from pieces, so that this file does not hold what it forbids.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "deb.deb" + "ian.org", "download.py" + "torch.org"]
FOLDERS = ["/" + "work/", "/" + "root/", "/" + "home/", "/tmp/" + "brief", "/opt/" + "wheels"]


def row(page: str, name: str) -> list[str]:
    """The cells of the table row whose first cell is this name in code marks; empty when there is none."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if cells[0] == f"`{name}`":
            return cells
    return []


def default(field: FieldInfo) -> str:
    """How a page writes a field's default."""
    if field.required:
        return "required"
    value = field.default
    if value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return f"`{json.dumps(list(value))}`"
    return f"`{value}`"


def commands() -> list[str]:
    """The names of the CLI's commands."""
    return sorted(typer.main.get_command(cli).commands)  # type: ignore[attr-defined]


def tracked() -> list[Path]:
    """Files under version control; skips where there is none."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip("not a git checkout: no list of tracked files")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def raised(kind: type[CtxmemError]) -> set[type[CtxmemError]]:
    """The errors under this one that a client may see."""
    ours = [error for error in kind.__subclasses__() if not error.__module__.startswith("tests.")]
    below = {error for direct in ours for error in raised(direct)}
    return below | ({kind} - {CtxmemError, ServiceError, ConfigError, TransformError})


class TestSettings:
    @pytest.mark.parametrize("field", structs.fields(Settings), ids=lambda field: field.name)
    def test_a_setting_has_its_row(self, field: FieldInfo) -> None:
        """With its variable and its default."""
        cells = row(SETTINGS, field.name)
        assert cells, f"docs/settings.md has no row for {field.name}"
        assert cells[1] == f"`{PREFIX}{field.name.upper()}`"
        made_from_others = field.default in ("", Path()) and field.name != "model"
        assert made_from_others or cells[2] == default(field)

    @pytest.mark.parametrize("field", structs.fields(Upstream), ids=lambda field: field.name)
    def test_a_field_of_an_upstream_has_its_row(self, field: FieldInfo) -> None:
        """With its default."""
        assert row(SETTINGS, field.name)[1:2] == [default(field)]

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_a_transform_has_its_rows(self, name: str) -> None:
        """In the settings, and with its paper in the README."""
        assert row(SETTINGS, name)
        assert row(README, name)

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_a_transform_has_its_knobs_explained(self, name: str) -> None:
        """Every field of its dataclass stands in its row."""
        missing = [field.name for field in fields(resolve(name)) if f"`{field.name}`" not in row(SETTINGS, name)[2]]
        assert not missing

    @pytest.mark.parametrize("name", POLICIES)
    def test_a_policy_has_its_row(self, name: str) -> None:
        """What it runs on arrival and at an epoch."""
        assert row(SETTINGS, name)


class TestCommands:
    @pytest.mark.parametrize("name", commands())
    def test_a_command_has_its_row(self, name: str) -> None:
        """In docs/cli.md, with its argument."""
        assert re.search(rf"^\| `ctxmem {name}[` ]", CLI, flags=re.MULTILINE)

    def test_no_row_names_a_command_that_is_gone(self) -> None:
        """The page lists what there is and nothing else."""
        assert set(re.findall(r"^\| `ctxmem ([a-z-]+)", CLI, flags=re.MULTILINE)) == set(commands())


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
    def test_links_within_the_repository_resolve(self, page: Path) -> None:
        """A link that is not an address leads to a file."""
        targets = [match["target"].partition("#")[0] for match in LINK.finditer(page.read_text())]
        broken = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
        assert not broken

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
    def test_make_targets_exist(self, page: Path) -> None:
        """A page that says `make this` names a target of the Makefile."""
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        code = re.findall(r"`[^`]*`|^```.*?^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        named = {match["target"] for piece in code for match in TARGET.finditer(piece)}
        assert named <= targets

    def test_the_readme_is_short(self) -> None:
        """150 lines: more belongs in docs."""
        assert len(README.splitlines()) <= 150

    def test_every_decision_says_why_and_what_follows(self) -> None:
        """The records of decisions are numbered without a gap, each in three parts."""
        records = sorted((ROOT / "docs" / "adr").glob("*.md"))
        assert [record.name[:4] for record in records] == [f"{i:04}" for i in range(1, len(records) + 1)]
        parts = ("**Context.**", "**Decision.**", "**Consequence.**")
        assert all(part in record.read_text() for record in records for part in parts)

    def test_the_version_is_in_the_changelog(self) -> None:
        """One version in the package, its metadata and the newest heading."""
        newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert newest is not None
        assert newest[1] == project["version"] == ctxmem.__version__

    def test_every_extra_is_in_the_readme(self) -> None:
        """Whoever installs sees what there is to choose from."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert all(row(README, extra) for extra in project["optional-dependencies"])


class TestReadme:
    @pytest.mark.parametrize(("code", "shown"), PYTHON.findall(README), ids=lambda text: (text or "").split("\n")[0])
    def test_the_example_runs(self, code: str, shown: str, tmp_path: Path) -> None:
        """As it stands, in an empty folder, and prints what is shown below it; one that calls a service must parse."""
        compile(code, "README.md", "exec")
        if code.startswith("# with the service running"):
            return
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout == shown


class TestApi:
    def test_every_header_is_explained(self) -> None:
        """What the service's code spells, docs/api.md explains."""
        code = "\n".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
        assert set(HEADER.findall(code)) <= set(HEADER.findall(API))

    def test_every_route_is_explained(self, tmp_path: Path) -> None:
        """What the app serves, docs/api.md explains, and the other way round."""
        with TestClient(create_app(Settings(data_dir=tmp_path, model=""))) as client:
            paths = client.get("/openapi.json").json()["paths"]
        real = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
        written = set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) /[^` ]*)`", API, flags=re.MULTILINE))
        assert written == real

    @pytest.mark.parametrize("error", sorted(raised(CtxmemError), key=lambda error: error.__name__))
    def test_every_error_is_explained(self, error: type[CtxmemError]) -> None:
        """With the code and the status that clients see."""
        answer = errors.answer(error.__new__(error))
        code = json.loads(answer.body)["error"]["code"]
        assert row(API, code)[1:2] == [str(answer.status)], code


def leaks() -> Iterator[str]:
    """Tracked files that name a registry's host or a folder of one machine."""
    pattern = re.compile("|".join([*map(re.escape, HOSTS), *(rf"(?<![\w.-]){re.escape(f)}" for f in FOLDERS)]).encode())
    for path in tracked():
        for found in pattern.findall(path.read_bytes()):
            yield f"{path.relative_to(ROOT)}: {found.decode()}"


def test_nothing_of_one_machine_is_in_the_repository() -> None:
    """No path of a developer's machine and no registry's host stands in a tracked file."""
    assert not list(leaks())
