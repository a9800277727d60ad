"""The command line without a service: it works on the database itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import ctxmem
from ctxmem import demo
from ctxmem.cli.app import app

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "I am Ann, and I like boats and ships of every kind, most of all the old ones."},
    {"role": "assistant", "content": "Noted: boats and ships."},
    {"role": "user", "content": "What do I like?"},
]
TEXT = (
    "The board met on Tuesday in the old customs house, and coffee was served as usual. The treasurer reported that "
    "income had fallen by 14 percent to 2.3 million euros. Several people said that this was a pity. The mooring fee "
    "for ships under 20 metres goes down from 80 to 65 euros on the first of June. "
) * 3


class Terminal:
    """Runs commands on one data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str, typed: str | None = None) -> Result:
        """One command, whatever its end."""
        return CliRunner().invoke(app, ["--data-dir", str(self.folder / "data"), *words], input=typed)

    def json(self, *words: str) -> Any:
        """What a command that succeeds prints as JSON."""
        done = self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def file(self, name: str, content: str) -> str:
        """A file beside the data folder."""
        path = self.folder / name
        path.write_text(content)
        return str(path)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terminal, dict[str, Any]]:
    """A data folder with one session, and the context that was built in it."""
    terminal = Terminal(tmp_path_factory.mktemp("used"))
    file = terminal.file("messages.json", json.dumps(MESSAGES))
    return terminal, terminal.json("context", file, "--budget", "60", "--session", "boats")


class TestVersion:
    def test_it_is_the_package_s(self, terminal: Terminal) -> None:
        """People and machines are told the same."""
        assert terminal.run("version").stdout == f"ctxmem {ctxmem.__version__}\n"
        assert terminal.json("version")["ctxmem"] == ctxmem.__version__


class TestCompress:
    def test_the_text_fits_the_budget(self, terminal: Terminal) -> None:
        """The text goes to standard output, the figures to standard error."""
        done = terminal.run("compress", terminal.file("minutes.txt", TEXT), "--budget", "100")
        assert done.exit_code == 0
        assert ctxmem.count_tokens(done.stdout, model="smollm2") <= 100
        assert "tokens" in done.stderr

    def test_standard_input_is_read_for_a_dash(self, terminal: Terminal) -> None:
        """It stands in a pipe."""
        done = terminal.run("compress", "-", "--ratio", "0.5", "--json", typed=TEXT)
        result = json.loads(done.stdout)
        assert result["tokens_after"] <= result["tokens_before"] / 2

    def test_what_is_dropped_is_given_by_spans(self, terminal: Terminal) -> None:
        """The spans and the result together make the original."""
        file = terminal.file("minutes.txt", TEXT)
        result = terminal.json("compress", file, "--budget", "100", "--unit", "sentence")
        for span in result["dropped"]:
            assert TEXT[span["start"] : span["end"]].strip()
        assert (
            terminal.run("compress", file, "--budget", "100", "--unit", "sentence", "--show").stdout.split()
            == TEXT.split()
        )

    def test_a_diff_for_a_query(self, terminal: Terminal) -> None:
        """On the terminal the whole source, in a page what was left out struck through, the reason on hover."""
        file, page = terminal.file("minutes.txt", TEXT), terminal.folder / "diff.html"
        asked = ("diff", file, "--ratio", "0.4", "--query", "What is the mooring fee?")
        assert terminal.run(*asked).stdout.split() == TEXT.split()
        assert "65 euros" in terminal.json(*asked)["text"]
        done = terminal.run(*asked, "--html", str(page))
        assert (done.exit_code, done.stdout) == (0, "")
        assert '<del title="has little to do with the query">' in page.read_text()
        assert terminal.run("diff", file).exit_code == 2

    @pytest.mark.parametrize("words", [(), ("--budget", "10", "--ratio", "0.5")])
    def test_it_takes_a_budget_or_a_ratio(self, terminal: Terminal, words: tuple[str, ...]) -> None:
        """Both or none is wrong usage."""
        done = terminal.run("compress", "-", *words, typed=TEXT)
        assert done.exit_code == 2
        assert done.stderr == "ctxmem: give either --budget or --ratio\n"

    @pytest.mark.parametrize(
        ("content", "said"), [(None, "No such file or directory"), (b"\xff\xfe", "is not UTF-8 text")]
    )
    def test_a_file_that_cannot_be_read_is_named(self, terminal: Terminal, content: bytes | None, said: str) -> None:
        """One line says which file and why."""
        path = terminal.folder / "absent.txt"
        if content is not None:
            path.write_bytes(content)
        done = terminal.run("compress", str(path), "--budget", "10")
        assert done.exit_code == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


class TestContext:
    def test_messages_and_receipt_are_printed(self, used: tuple[Terminal, dict[str, Any]]) -> None:
        """The receipt lists every message once, also those that were left out."""
        _, built = used
        assert built["messages"] == [MESSAGES[0], MESSAGES[-1]]
        decisions = [item["decision"] for item in built["receipt"]["items"]]
        assert decisions == ["kept", "dropped", "dropped", "kept"]
        assert built["receipt"]["budget"]["tokens"] <= 60

    def test_people_get_messages_and_a_table(self, terminal: Terminal) -> None:
        """Messages go to standard output one a line, the receipt to standard error."""
        file = terminal.file("messages.json", json.dumps({"messages": MESSAGES}))
        done = terminal.run("context", file, "--budget", "600")
        assert [json.loads(line) for line in done.stdout.splitlines()] == MESSAGES
        assert done.stderr.count("kept") == len(MESSAGES)

    def test_a_budget_that_is_too_small_has_its_own_exit_code(self, terminal: Terminal) -> None:
        """A script can tell it from other failures."""
        done = terminal.run("context", terminal.file("messages.json", json.dumps(MESSAGES)), "--budget", "10")
        assert done.exit_code == 4
        assert "the budget allows 10" in done.stderr

    @pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"role": "pirate", "content": "Arr"}]'])
    def test_bad_messages_are_wrong_input(self, terminal: Terminal, content: str) -> None:
        """Malformed JSON, no list, an unknown role: one line each, and nothing is logged."""
        done = terminal.run("context", terminal.file("messages.json", content))
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1


class TestHistory:
    def test_a_receipt_is_found_by_its_id(self, used: tuple[Terminal, dict[str, Any]]) -> None:
        """As JSON it equals what was given when the context was built."""
        terminal, built = used
        assert terminal.json("inspect", built["receipt"]["id"]) == built["receipt"]
        shown = terminal.run("inspect", built["receipt"]["id"]).stdout
        assert all(item["item_id"] in shown for item in built["receipt"]["items"])

    def test_an_item_is_restored_as_it_came(self, used: tuple[Terminal, dict[str, Any]]) -> None:
        """Byte for byte, on one line."""
        terminal, built = used
        for item, message in zip(built["receipt"]["items"], MESSAGES, strict=True):
            expected = json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n"
            assert terminal.run("restore", item["item_id"]).stdout == expected

    def test_sessions_are_listed_and_exported(self, used: tuple[Terminal, dict[str, Any]]) -> None:
        """The export holds every message as it came."""
        terminal, _ = used
        assert [session["id"] for session in terminal.json("sessions")["sessions"]] == ["boats"]
        assert "boats" in terminal.run("sessions").stdout
        lines = terminal.run("export", "boats").stdout.splitlines()
        assert [json.loads(line)["message"] for line in lines] == MESSAGES
        assert terminal.json("export", "boats") == [json.loads(line) for line in lines]
        assert terminal.json("inspect", "boats")["events"] == terminal.json("export", "boats")
        assert "What do I like?" in terminal.run("inspect", "boats").stdout

    @pytest.mark.parametrize("words", [("inspect", "rq_" + "0" * 32), ("inspect", "nobody"), ("restore", "it_nothing")])
    def test_an_unknown_id_has_its_own_exit_code(
        self, used: tuple[Terminal, dict[str, Any]], words: tuple[str, str]
    ) -> None:
        """It is neither an empty result nor a traceback."""
        done = used[0].run(*words)
        assert done.exit_code == 3
        assert done.stdout == ""
        assert done.stderr.startswith("ctxmem: no ")


class TestErase:
    def test_nothing_is_left_of_an_erased_session(self, terminal: Terminal) -> None:
        """The receipt of the deletion counts the rows."""
        file = terminal.file("messages.json", json.dumps(MESSAGES))
        terminal.json("context", file, "--session", "boats")
        erased = terminal.json("erase", "--session", "boats", "--yes")
        assert erased["counts"]["events"] == len(MESSAGES)
        assert terminal.run("export", "boats").exit_code == 3

    def test_it_asks_first(self, terminal: Terminal) -> None:
        """No is an answer, and so is silence."""
        file = terminal.file("messages.json", json.dumps(MESSAGES))
        terminal.json("context", file, "--session", "boats")
        assert terminal.run("erase", "--session", "boats", typed="n\n").exit_code == 1
        assert terminal.run("export", "boats").exit_code == 0

    def test_it_wants_one_target(self, terminal: Terminal) -> None:
        """A user or a session, not both and not none."""
        assert terminal.run("erase", "--yes").exit_code == 2
        assert terminal.run("erase", "--yes", "--user", "a", "--session", "b").exit_code == 2


class TestReach:
    def test_a_named_service_that_is_away_is_said_so(self, terminal: Terminal) -> None:
        """It does not fall back on the local database silently."""
        done = terminal.run("--base-url", "http://127.0.0.1:9/v1", "sessions")
        assert done.exit_code == 5
        assert "http://127.0.0.1:9/v1 cannot be reached" in done.stderr

    def test_a_service_that_left_its_address_behind_is_not_missed(self, terminal: Terminal) -> None:
        """After a crash of the service the commands work on the database."""
        data = terminal.folder / "data"
        data.mkdir()
        (data / "service.json").write_text('{"base_url": "http://127.0.0.1:9/v1", "pid": 1}')
        assert terminal.json("sessions") == {"sessions": []}

    def test_debug_lets_the_error_through(self, terminal: Terminal) -> None:
        """For those who want the traceback."""
        done = CliRunner().invoke(app, ["--debug", "--data-dir", str(terminal.folder), "inspect", "nobody"])
        assert type(done.exception).__name__ == "NotFound"


class TestDoctor:
    def test_an_installation_without_a_service_is_well(self, terminal: Terminal) -> None:
        """What does not run is a note; what is exact is called so; nothing is made by looking."""
        findings = {finding["what"]: finding for finding in terminal.json("doctor")["findings"]}
        assert findings["service"] == {"what": "service", "state": "note", "text": "not running: ctxmem serve"}
        assert findings["tokens of smollm2"]["text"].startswith("exact")
        assert not (terminal.folder / "data").exists()

    def test_a_database_that_cannot_be_read_is_bad(self, terminal: Terminal) -> None:
        """The exit code says so too."""
        (terminal.folder / "data").mkdir()
        (terminal.folder / "data" / "ctxmem.db").write_bytes(b"not a database, by far" * 100)
        done = terminal.run("doctor")
        assert done.exit_code == 1
        assert "bad" in done.stdout


class TestDemoData:
    def test_the_conversation_is_long_and_numbered(self) -> None:
        """At least sixty turns, each with a source."""
        turns = demo.turns()
        assert len(turns) >= 60
        assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
        assert all(turn.text and turn.source.partition("/")[0] in ("memorybank", "longmemeval") for turn in turns)
