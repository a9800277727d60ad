"""The containers start what exists: their commands, ports, variables and files are checked against the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml

from ctxmem.cli.app import app
from service.settings import PREFIX, Settings, load

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
GIVEN = {"POSTGRES_PASSWORD": "p4ss", "CTXMEM_KEYS": "./keys.txt"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions as (word, arguments), continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def arguments(word: str) -> list[str]:
    """The arguments of every instruction of this kind."""
    return [rest for found, rest in instructions() if found == word]


def interpolated(text: str) -> str:
    """The text with Compose's variables replaced by what the header of the file says to give."""
    return VARIABLE.sub(lambda m: GIVEN.get(m["name"], m["rest"] if m["how"] == "-" else ""), text)


def service_environment() -> dict[str, str]:
    """The environment the service gets in its container: the image's, then Compose's."""
    image = dict(pair.split("=", 1) for rest in arguments("ENV") for pair in shlex.split(rest))
    compose = {name: interpolated(value) for name, value in COMPOSE["services"]["service"]["environment"].items()}
    return {**{name: value for name, value in image.items() if name.startswith(PREFIX)}, **compose}


class TestDockerfile:
    def test_every_copied_path_exists_and_reaches_the_builder(self) -> None:
        """A COPY of something absent or ignored fails the build."""
        sources = [path for rest in arguments("COPY") if "--from" not in rest for path in rest.split()[:-1]]
        lines = (ROOT / ".dockerignore").read_text().split("\n")
        kept = [line[1:] for line in lines if line.startswith("!")]
        assert sources
        assert all((ROOT / path).exists() for path in sources)
        assert all(any(fnmatch(path, pattern) for pattern in kept) for path in sources)

    def test_everything_the_package_is_built_from_is_copied(self) -> None:
        """Readme, licences and packages named in pyproject.toml are there when pip builds the wheel."""
        config = tomllib.loads((ROOT / "pyproject.toml").read_text())
        project, packages = config["project"], config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        sources = {path for rest in arguments("COPY") if "--from" not in rest for path in rest.split()[:-1]}
        needed = {project["readme"], *project["license-files"], *packages}
        assert {path.split("/")[0] for path in needed} <= sources

    def test_the_command_is_our_cli(self) -> None:
        """CMD names an installed script and one of its commands."""
        script, command = json.loads(arguments("CMD")[-1])
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        assert script in scripts
        assert command in typer.main.get_command(app).commands

    def test_it_is_installed_by_the_makefile(self) -> None:
        """The pins stand in one place."""
        assert any("make install" in rest and "PACKAGE=" in rest for rest in arguments("RUN"))
        assert "PACKAGE :=" in (ROOT / "Makefile").read_text()

    def test_it_does_not_run_as_root(self) -> None:
        """The last stage drops to a user of its own."""
        last = instructions()[max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :]
        assert dict(last)["USER"] not in ("root", "0")

    def test_the_port_is_the_default_port(self) -> None:
        """EXPOSE and the health check speak of the port that the service listens on."""
        port = str(Settings().port)
        assert arguments("EXPOSE") == [port]
        assert f"127.0.0.1:{port}/readyz" in arguments("HEALTHCHECK")[0]


class TestCompose:
    def test_the_file_follows_the_compose_specification(self) -> None:
        """Checked against the published schema, as packaged by check-jsonschema."""
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        done = subprocess.run([*command, ROOT / "docker-compose.yml"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout

    def test_every_service_says_how_to_tell_that_it_is_well(self) -> None:
        """By a health check in the file, or by the image's own for what is built here."""
        for name, service in COMPOSE["services"].items():
            assert "healthcheck" in service or ("build" in service and arguments("HEALTHCHECK")), name

    def test_what_is_waited_for_exists(self) -> None:
        """The service waits for services that are there, until they are healthy."""
        waited = COMPOSE["services"]["service"]["depends_on"]
        assert waited.keys() == COMPOSE["services"].keys() - {"service"}
        assert all(how == {"condition": "service_healthy"} for how in waited.values())

    def test_what_is_used_is_declared(self) -> None:
        """Named volumes and secrets stand at the end of the file."""
        services = COMPOSE["services"].values()
        volumes = {mount.split(":")[0] for service in services for mount in service.get("volumes", [])}
        secrets = {secret for service in services for secret in service.get("secrets", [])}
        assert volumes == COMPOSE["volumes"].keys()
        assert secrets == COMPOSE["secrets"].keys()

    @pytest.mark.parametrize("name", sorted({match["name"] for match in VARIABLE.finditer(COMPOSE_TEXT)}))
    def test_a_variable_is_explained_at_the_top(self, name: str) -> None:
        """Whoever opens the file reads what to set."""
        assert re.search(rf"^# {name} ", COMPOSE_TEXT, flags=re.MULTILINE)

    def test_secrets_have_no_default(self) -> None:
        """A forgotten password stops the start instead of becoming a known one."""
        how = {match["name"]: match["how"] for match in VARIABLE.finditer(COMPOSE_TEXT)}
        assert {name for name, sign in how.items() if sign == "?"} == set(GIVEN)

    def test_the_service_starts_with_these_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The settings class accepts the container's environment: every name is known, and no value contradicts."""
        for name, value in service_environment().items():
            monkeypatch.setenv(name, value)
        settings = load()
        assert settings.host == "0.0.0.0"
        assert str(settings.keys_file) == f"/run/secrets/{next(iter(COMPOSE['secrets']))}"
        assert urlsplit(settings.redis_url or "").hostname in COMPOSE["services"]
        assert COMPOSE["services"]["service"]["ports"][0].endswith(f":{settings.port}")

    def test_the_database_is_the_one_beside_it(self) -> None:
        """Host, user, password and database of the URL are those that the database container is given."""
        url = urlsplit(service_environment()["CTXMEM_DATABASE_URL"])
        given = COMPOSE["services"][url.hostname or ""]["environment"]
        password = interpolated(given["POSTGRES_PASSWORD"])
        assert (url.username, url.password, url.path) == (given["POSTGRES_USER"], password, f"/{given['POSTGRES_DB']}")
