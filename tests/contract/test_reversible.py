"""Originals behind marks, on both databases: durable first, each tenant's own, given back word for word."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ast import literal_eval
from dataclasses import replace
from functools import partial

import pytest

from ctxmem.compressors.compress import Compressor
from ctxmem.compressors.eligible import arrivals, history
from ctxmem.compressors.lexical import Lexical
from ctxmem.errors import NotFound, StoreError
from ctxmem.ids import new_id, parse_item
from ctxmem.manager.reversible import RESTORE_TOOL, TOOL, Reversible
from ctxmem.plan import layout
from ctxmem.stores.sql import SqlStore
from ctxmem.testing import WordCounter, messages, tool_call, tool_result, turns
from ctxmem.types import Budget

TEXT = " ".join(f"The ship {i} of Name{i} came to the “harbour” ⚓ in {1800 + i}, and then it left." for i in range(30))
COMPRESSOR = Compressor(WordCounter(), Lexical())


def scope(store: SqlStore, tenant: str) -> Reversible:
    """A tenant's view of the store."""

    def find(item_id: str) -> bytes:
        found = store.artifact(tenant, parse_item(item_id)[1])
        if found is None:
            raise NotFound(item_id)
        return found

    return Reversible(partial(store.put_artifact, tenant), find)


def handle(text: str) -> str:
    found = re.search(r"\[\d+ tokens left out, (ctx:[0-9a-f]+)\]$", text)
    assert found is not None
    return found[1]


class TestRestore:
    def test_word_for_word(self, store: SqlStore) -> None:
        """Mark and text keep the budget; the mark's handle brings back everything."""
        mine = scope(store, new_id("t"))
        done = mine(COMPRESSOR, TEXT, 200)
        assert done.tokens_after == len((done.text or "").split()) <= 200
        assert mine.answer({"handle": handle(done.text or "")}) == TEXT
        assert mine.answer(json.dumps({"handle": handle(done.text or "")})) == TEXT

    def test_two_tenants_with_the_same_text(self, store: SqlStore) -> None:
        """A handle means nothing to the other tenant, even where the text is the same, until it kept its own."""
        mine, other = scope(store, new_id("t")), scope(store, new_id("t"))
        name = handle(mine(COMPRESSOR, TEXT, 200).text or "")
        assert other.answer({"handle": name}).startswith("error: nothing is kept")
        assert handle(other(COMPRESSOR, TEXT, 200).text or "") == name
        assert other.answer({"handle": name}) == mine.answer({"handle": name}) == TEXT

    def test_what_could_not_be_kept_is_not_marked(self) -> None:
        """The store comes first: no mark without its original."""

        def broken(content: bytes) -> str:
            raise StoreError("the disk is full")

        with pytest.raises(StoreError):
            Reversible(broken, lambda item_id: b"")(COMPRESSOR, TEXT, 200)

    @pytest.mark.parametrize(("text", "budget"), [("", 5), ("word", 5), (TEXT, 10_000), (TEXT, 3), ("`a` " * 99, 40)])
    def test_what_is_not_shortened_is_not_marked(self, store: SqlStore, text: str, budget: int) -> None:
        """Unchanged, with the reason."""
        done = scope(store, new_id("t"))(COMPRESSOR, text, budget)
        assert done.text == text
        assert done.reason
        assert done.tokens_after == done.tokens_before

    def test_a_mark_outlives_further_compression(self, store: SqlStore) -> None:
        """What was compressed is compressed again: the first mark stays, and still restores."""
        mine = scope(store, new_id("t"))
        first = mine(COMPRESSOR, TEXT, 250).text or ""
        second = mine(COMPRESSOR, first, 120).text or ""
        assert handle(first) in second
        assert mine.answer({"handle": handle(second)}) == first
        assert mine.answer({"handle": handle(first)}) == TEXT

    @pytest.mark.parametrize(
        "arguments",
        ["", "{", "[]", "null", {}, {"handle": 3}, {"handle": "ctx:"}, {"handle": "ctx:%"}, {"handle": "../x"},
         {"handle": "ctx:" + "0" * 20}, {"handle": "ctx:" + "g" * 20}, {"handle": "ctx:" + "0" * 999}, "[" * 100_000],
    )  # fmt: skip
    def test_a_wrong_call_is_answered_for_good(self, store: SqlStore, arguments: object) -> None:
        """The model is told, and told not to try again."""
        said = scope(store, new_id("t")).answer(arguments)  # type: ignore[arg-type]
        assert said.startswith("error: ")
        assert "Do not call this tool with it again" in said

    def test_another_process_has_it(self, tmp_path) -> None:
        """Originals outlive the process that wrote them, and both make the same bytes."""
        code = (
            "from tests.contract.test_reversible import *; store = SqlStore('sqlite:///log.db');"
            "print(repr(scope(store, 't')(COMPRESSOR, TEXT, 200).text)); store.close()"
        )
        run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {sys.path[0]!r}); {code}"]
        first, again = (subprocess.run(run, cwd=tmp_path, capture_output=True, text=True) for _ in range(2))
        assert (first.returncode, first.stdout) == (0, again.stdout), first.stderr
        store = SqlStore(f"sqlite:///{tmp_path}/log.db")
        try:
            assert scope(store, "t").answer({"handle": handle(literal_eval(first.stdout))}) == TEXT
        finally:
            store.close()


@pytest.mark.parametrize("name", [TOOL, "search"])
def test_what_was_brought_back_is_never_compressed(name: str) -> None:
    """Neither as it arrives nor when it is old; another tool's result is."""
    said = (*turns(2), *messages(tool_call("c1", name=name), tool_result("c1", TEXT), "user: So?", "assistant: So."))
    said = tuple(replace(message, id=f"m{i}") for i, message in enumerate(said))
    late = messages("user: And now?")[0]
    plan = layout((*said, replace(late, id="late")), Budget(100), WordCounter())
    found = {segment.text for segment in (*arrivals(plan, 10), *history(plan, 10))}
    assert (TEXT in found) == (name != TOOL)
    assert RESTORE_TOOL["function"]["name"] == TOOL
