"""What people see: rows that keep their columns, dropped text that can be told from the rest."""

from __future__ import annotations

import pytest
from rich.console import Console

from ctxmem.cli import output

RECEIPT = {
    "id": "rq_1",
    "session_id": "s_1",
    "action": "epoch",
    "exact": False,
    "stable_prefix_tokens": 1200,
    "budget": {"limit": 2048, "reserve": 0, "tokens": 1999},
    "items": [],
}


class TestRunningTable:
    def test_every_row_is_as_wide_as_the_head(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Numbers stand right, long texts are cut, and nothing wraps."""
        table = output.RunningTable({"turn": 4, "in": 6, "answer": 10, "id": 5}, numbers=2, flexible="answer")
        table.add((7, 12345, "a rather long answer", "rq_01"), link="http://127.0.0.1/")
        head, row = capsys.readouterr().out.splitlines()
        assert head.split() == ["turn", "in", "answer", "id"]
        assert row.rstrip() == "   7 12,345 a rather … rq_01"

    def test_an_answer_with_markup_is_shown_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A model may write square brackets."""
        output.RunningTable({"answer": 20}, numbers=0, flexible="answer").add(("[bold]x[/]",), link="http://h/")
        assert "[bold]x[/]" in capsys.readouterr().out


class TestHeadline:
    def test_an_estimate_is_called_so(self) -> None:
        """Exact counts are not confused with estimates."""
        line = output.headline(RECEIPT)
        assert line == "rq_1  epoch  1,999 of 2,048 tokens (estimated), stable prefix 1,200, session s_1"

    def test_no_limit_is_no_number(self) -> None:
        """A request without a budget and a known window."""
        unlimited = {**RECEIPT, "exact": True, "budget": {"limit": None, "reserve": 0, "tokens": 5}}
        assert "5 of no limit tokens," in output.headline(unlimited)


class TestMarked:
    def test_only_dropped_spans_are_struck_out(self) -> None:
        """The text itself stays whole."""
        text = output.marked("keep drop keep", [{"start": 5, "end": 9}])
        assert text.plain == "keep drop keep"
        assert [(span.start, span.end, span.style) for span in text.spans] == [(5, 9, "red strike")]


class TestTable:
    def test_ids_are_never_broken(self) -> None:
        """They are there to be copied."""
        console = Console(width=60)
        item = "it_" + "0" * 32
        with console.capture() as shown:
            console.print(output.table(("item", "reason"), [(item, "a reason that is much too long for one line")]))
        assert item in shown.get()

    def test_numbers_stand_right(self) -> None:
        """A column of numbers, with nothing for None."""
        console = Console(width=60)
        with console.capture() as shown:
            console.print(output.table(("tokens", "note"), [(1234, None), (5, "x")]))
        assert [line.rstrip() for line in shown.get().splitlines()] == ["tokens  note", " 1,234", "     5  x"]
