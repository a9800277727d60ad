"""What commands show: JSON on standard output, or tables and text for people. Messages go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_LEAST_WIDTH = 12
_FILE_WIDTH = 160
_WHOLE = frozenset({"item", "event", "session", "last used"})
"""Columns whose cells are never broken."""


_STYLES: Mapping[str, str] = {
    "kept": "",
    "pruned": "yellow",
    "folded": "cyan",
    "consolidated": "cyan",
    "retrieved": "green",
    "memory": "magenta",
    "dropped": "red",
}


def screen() -> Console:
    """Standard output for people."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=_width(sys.stdout))


def messages() -> Console:
    """Standard error, for what is not the result."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def print_json(value: Any) -> None:
    """The result as JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def working() -> Progress:
    """A spinner with the time gone by, on standard error, gone when the work is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=messages(), transient=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table; columns of numbers stand right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    cells = [[_cell(value) for value in row] for row in rows]
    for position, column in enumerate(columns):
        numbers = bool(cells) and all(isinstance(row[position], int) for row in cells if row[position] != "")
        made.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=column in _WHOLE)
    for row in cells:
        made.add_row(
            *(cell if isinstance(cell, Text) else f"{cell:,}" if isinstance(cell, int) else cell for cell in row)
        )
    return made


def show_receipt(console: Console, receipt: Mapping[str, Any]) -> None:
    """Print a receipt for people: every event of the request, once."""
    rows = [
        (
            item["item_id"],
            Text(item["decision"], style=_STYLES.get(item["decision"], "")),
            item["stage"],
            item["reason"],
            item["tokens_before"],
            item["tokens_after"],
        )
        for item in receipt["items"]
    ]
    console.print(headline(receipt), soft_wrap=True)
    console.print(table(("item", "decision", "stage", "reason", "before", "after"), rows))


def headline(receipt: Mapping[str, Any]) -> str:
    """One line about a request."""
    budget = receipt["budget"]
    limit = f"{budget['limit']:,}" if budget["limit"] is not None else "no limit"
    exact = "" if receipt["exact"] else " (estimated)"
    return (
        f"{receipt['id']}  {receipt.get('action', '')}  {budget['tokens']:,} of {limit} tokens{exact}, "
        f"stable prefix {receipt['stable_prefix_tokens']:,}, session {receipt['session_id']}"
    )


def marked(text: str, dropped: Iterable[Mapping[str, Any]]) -> Text:
    """The text with the dropped spans struck out in red.

    Args:
        text: the original.
        dropped: spans with `start` and `end`, in characters.
    """
    shown = Text(text)
    for span in dropped:
        shown.stylize("red strike", span["start"], span["end"])
    return shown


def _width(stream: TextIO) -> int | None:
    """Characters of a line: the terminal's own, or plenty for a file or a pipe."""
    return None if stream.isatty() else _FILE_WIDTH


def _cell(value: Any) -> str | int | Text:
    if value is None:
        return ""
    return value if isinstance(value, int | Text) and not isinstance(value, bool) else str(value)


class RunningTable:
    """A table whose rows are printed as they come, in columns of fixed width."""

    def __init__(self, columns: Mapping[str, int], *, numbers: int, flexible: str) -> None:
        """Print the head.

        Args:
            columns: names and widths in characters.
            numbers: how many of them, from the left, hold numbers and stand right.
            flexible: the column that takes or gives the room a terminal has or lacks.
        """
        self._widths = dict(columns)
        self._numbers = numbers
        self._console = Console(highlight=False)
        full = sum(columns.values()) + len(columns)
        if self._console.is_terminal:
            self._widths[flexible] = max(_LEAST_WIDTH, columns[flexible] + self._console.width - full)
        else:
            self._console.width = full
        self._print([Text(name, style="bold") for name in columns])

    def add(self, row: Sequence[str | int], *, link: str) -> None:
        """Print a row; its last cell leads to `link` in terminals that can."""
        cells = [Text(f"{value:,}" if isinstance(value, int) else value) for value in row]
        cells[-1].stylize(f"link {link}")
        self._print(cells)

    def _print(self, cells: Sequence[Text]) -> None:
        line = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        for place, width in enumerate(self._widths.values()):
            justify: Literal["left", "right"] = "right" if place < self._numbers else "left"
            line.add_column(width=width, no_wrap=True, overflow="ellipsis", justify=justify)
        line.add_row(*cells)
        self._console.print(line)
