"""The whole service as a newcomer starts it: what it prints, how it answers, survives and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from openai import OpenAI
from typer.testing import CliRunner, Result

from ctxmem.cli.app import app

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
START_SECONDS = 180.0
RECOVERY_SECONDS = 60.0
PARTS = {"valkey": "valkey-server", "model worker": "service.worker", "gateway": "service.gateway"}


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class Service:
    """A running service and what it printed when it was ready."""

    process: subprocess.Popen[str]
    folder: Path
    printed: list[str]

    @property
    def exported(self) -> dict[str, str]:
        """The variables it says to export."""
        lines = [line.removeprefix("export ") for line in self.printed if line.startswith("export ")]
        return dict(line.split("=", 1) for line in lines)

    @property
    def base_url(self) -> str:
        return self.exported["OPENAI_BASE_URL"]

    def client(self) -> OpenAI:
        """The official client, set up as the printed lines say."""
        return OpenAI(base_url=self.base_url, api_key=self.exported["OPENAI_API_KEY"], max_retries=0)

    def part(self, name: str) -> psutil.Process | None:
        """One of its processes; None while it is down."""
        for child in psutil.Process(self.process.pid).children():
            try:
                if PARTS[name] in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    def whole(self) -> bool:
        """Whether every part answers."""
        try:
            with urlopen(self.base_url.removesuffix("/v1") + "/readyz", timeout=5) as answer:
                state = json.load(answer)
        except OSError:
            return False
        return bool(state["status"] == "ok")

    def run(self, *words: str) -> Result:
        """A command of the command line on its data folder."""
        return CliRunner().invoke(app, ["--data-dir", str(self.folder), *words])


def launch(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`python -m service` on a folder."""
    command = [sys.executable, "-m", "service", "--data-dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def refused(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and message of a service that must not start."""
    with launch(folder, *words) as process:
        _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for this module; its end is a test of its own."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    log = (folder.parent / "log").open("w")
    command = [sys.executable, "-m", "service", "--data-dir", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        made = Service(process, folder, [process.stdout.readline().strip() for _ in range(3)])
        until(made.whole, START_SECONDS)  # on a busy machine it says that it is ready before its model is
        yield made
        assert process.poll() is None, "the service did not live to the end of its tests"
        parts = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "a drained service exits with 0"
        assert process.stdout.read() == "", "it says how to use it once"
        assert not psutil.wait_procs(parts, timeout=5)[1], "a drained service leaves no child"
        assert not (folder / "service.json").exists()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        log.close()


@pytest.mark.model
class TestWhole:
    def test_it_prints_what_a_newcomer_needs(self, service: Service) -> None:
        """Where it is, and the lines to export; the key is the one in the private file."""
        assert service.printed[0].endswith(f"is ready at {service.base_url}")
        assert sum(line.startswith("export OPENAI_BASE_URL=") for line in service.printed) == 1
        assert service.exported["OPENAI_API_KEY"] == (service.folder / "key").read_text().strip()
        assert (service.folder / "key").stat().st_mode & 0o777 == 0o600

    def test_the_official_client_gets_an_answer_from_the_local_model(self, service: Service) -> None:
        """Nothing but the two exported lines is set."""
        said = [{"role": "user", "content": "What is the capital of France?"}]
        answer = service.client().chat.completions.create(model=MODEL, messages=said, max_tokens=12, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")

    def test_the_supervisor_is_light(self, service: Service) -> None:
        """It holds no model and no web framework."""
        assert psutil.Process(service.process.pid).memory_info().rss < 80 * 2**20

    def test_commands_talk_to_it(self, service: Service) -> None:
        """A chat, its receipt, its original, its erasure: all through the service that runs."""
        told = service.run(
            "chat", "--once", "I like old ships.", "--session", "harbour", "--max-tokens", "12", "--json"
        )
        assert told.exit_code == 0, told.output
        turn = json.loads(told.stdout)
        item = turn["receipt"]["items"][-1]
        assert json.loads(service.run("inspect", turn["receipt"]["id"], "--json").stdout)["items"][-1] == item
        original = service.run("restore", item["item_id"]).stdout
        assert original == '{"role":"user","content":"I like old ships."}\n'
        exported = [json.loads(line) for line in service.run("export", "harbour").stdout.splitlines()]
        assert [event["role"] for event in exported] == ["user", "assistant"]
        assert exported[1]["message"]["content"] == turn["answer"]
        assert service.run("inspect", "rq_" + "0" * 32).exit_code == 3
        assert (
            json.loads(service.run("erase", "--session", "harbour", "--yes", "--json").stdout)["counts"]["events"] == 2
        )
        assert service.run("export", "harbour").exit_code == 3

    def test_a_text_is_compressed_by_it(self, service: Service) -> None:
        """The result is within the budget, and the small budget of a context has its exit code."""
        file = service.folder.parent / "minutes.txt"
        file.write_text(
            "The board met on Tuesday. Income fell by 14 percent to 2.3 million euros. Coffee was served. " * 6
        )
        result = json.loads(service.run("compress", str(file), "--budget", "60", "--json").stdout)
        assert result["tokens_after"] <= 60 < result["tokens_before"]
        file.write_text('[{"role": "user", "content": "Far too much for so small a budget, and nothing can go."}]')
        assert service.run("context", str(file), "--budget", "5").exit_code == 4

    def test_the_doctor_finds_it_well(self, service: Service) -> None:
        """Models, tokenizers, database and every part of the service."""
        done = service.run("doctor", "--json")
        assert done.exit_code == 0, done.output
        findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert findings["service: worker"]["text"] == "ok"
        assert findings["tokens of smollm2"]["text"].startswith("exact")

    def test_the_demo_runs_through_it(self, service: Service) -> None:
        """A few turns in a tiny window: never over budget, every receipt whole, what was left out comes back."""
        done = service.run("demo", "--turns", "6", "--budget", "256", "--json")
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert [row["turn"] for row in result["turns"]] == [1, 2, 3, 4, 5, 6]
        assert all(row["tokens_sent"] <= 256 for row in result["turns"])
        assert result["summary"]["receipts_complete"] == 6
        assert result["summary"]["restored"]["byte_equal"]

    @pytest.mark.parametrize("example", ["openai_client.py", "streaming.py"])
    def test_the_examples_run(self, service: Service, example: str) -> None:
        """As their first lines say, with what the service printed."""
        run = [sys.executable, str(ROOT / "examples" / example)]
        done = subprocess.run(run, env={**os.environ, **service.exported}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "rq_" in done.stdout

    @pytest.mark.parametrize("name", list(PARTS))
    def test_a_killed_part_comes_back(self, service: Service, name: str) -> None:
        """`kill -9` of any process: another takes its place, and the client is answered again."""
        victim = service.part(name)
        assert victim is not None
        victim.kill()
        until(lambda: service.part(name) not in (None, victim), RECOVERY_SECONDS)
        until(service.whole, RECOVERY_SECONDS)
        said = [{"role": "user", "content": "Hello"}]
        assert service.client().chat.completions.create(model=MODEL, messages=said, max_tokens=4).choices

    def test_a_second_service_on_its_folder_is_refused(self, service: Service) -> None:
        """Two supervisors would fight over one database."""
        code, said = refused(service.folder, "--port", "0")
        assert code == 1
        assert said == f"ctxmem: a service (process {service.process.pid}) already runs on {service.folder}; " + (
            "stop it or choose another data_dir\n"
        )


class TestEnds:
    def test_after_kill_9_of_the_supervisor_it_starts_again(self, tmp_path: Path) -> None:
        """Its children die with it, and what it left behind stands in nobody's way."""
        for end in (signal.SIGKILL, signal.SIGTERM):
            with launch(tmp_path, "--port", "0", "--model", "", "--json") as process:
                assert process.stdout is not None
                address = json.loads(process.stdout.readline())
                assert address["pid"] == process.pid
                parts = psutil.Process(process.pid).children()
                assert len(parts) == 2
                process.send_signal(end)
                process.communicate(timeout=30)
            assert not psutil.wait_procs(parts, timeout=10)[1]
        assert process.returncode == 0

    def test_it_ends_with_the_parent_it_was_told_of(self, tmp_path: Path) -> None:
        """A command's own service does not outlive a killed command."""
        with launch(tmp_path, "--port", "0", "--model", "", "--stop-with", "1") as process:
            printed, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert printed == ""


class TestRefused:
    def test_a_port_in_use(self, tmp_path: Path) -> None:
        """One line says which."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, said = refused(tmp_path, "--port", str(port))
        assert code == 1
        assert said == f"ctxmem: cannot listen on 127.0.0.1 port {port}: Address already in use\n"

    @pytest.mark.parametrize("words", [("--port", "-1"), ("--host", "0.0.0.0"), ("--log-level", "loud")])
    def test_wrong_settings(self, tmp_path: Path, words: tuple[str, str]) -> None:
        """Nothing is started or written."""
        code, said = refused(tmp_path / "data", *words)
        assert code == 2
        assert said.startswith("ctxmem: ")
        assert not (tmp_path / "data").exists()

    def test_a_gateway_that_cannot_start_ends_the_service(self, tmp_path: Path) -> None:
        """It is not tried for ever: the first start must succeed."""
        (tmp_path / "ctxmem.db").mkdir()
        code, said = refused(tmp_path, "--port", "0", "--model", "")
        assert code == 1
        assert "the gateway does not start" in said


def test_the_settings_in_effect_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their passwords left out."""
    monkeypatch.setenv("CTXMEM_REDIS_URL", "redis://user:hunter2@127.0.0.1:6379/0")
    done = CliRunner().invoke(app, ["--data-dir", str(tmp_path), "config", "--json"])
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown["data_dir"] == str(tmp_path)
    assert "hunter2" not in done.stdout
