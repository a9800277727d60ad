"""The tool `recall` in a session: by scope, by item, by words; nothing a model writes raises."""

from __future__ import annotations

from typing import Any

import pytest

from ctxmem.compressors.pencil.marks import Mark
from ctxmem.errors import NotFound
from ctxmem.ids import item_of_event
from ctxmem.manager import ContextManager
from ctxmem.manager.scopes import Scopes
from tests.unit.manager.test_arrive import SYSTEM, user


@pytest.fixture
def scopes(cm: ContextManager) -> Scopes:
    """With one scope that has returned and was folded."""
    cm.prepare("s", [SYSTEM, user("Fix it.")], 4000)
    scopes = cm.session("s").scopes
    opened = scopes.open("find the port")
    cm.session("s").append([{"role": "assistant", "content": "The gateway listens on port 4711."}])
    scopes.end(Mark("return", opened.scope, "found"))
    cm.prepare("s", [user("Go on.")], 4000)
    return scopes


def test_what_a_scope_folded_is_recalled(cm: ContextManager, scopes: Scopes) -> None:
    """By the scope's handle, by words and by the item, word for word."""
    said = next(hit for hit in scopes.recall("which port does the gateway listen on"))
    assert said.text == "The gateway listens on port 4711."
    mark = cm.session("s").events()[2]
    assert scopes.recall(f"f{mark.seq}") == scopes.recall(said.id) != ()
    assert scopes.answer('{"input": "gateway port"}').startswith(f"[{said.id}] The gateway listens on port 4711.")


@pytest.mark.parametrize("arguments", ["", "{", "[]", "{}", '{"input": 7}', {"input": " "}, {"query": "x"}, "[" * 9999])
def test_a_malformed_call_is_answered_with_what_is_wrong(scopes: Scopes, arguments: Any) -> None:
    """So that the model can call again."""
    assert scopes.answer(arguments).startswith('error: give {"input"')


@pytest.mark.parametrize("asked", ["f999999999999999999999", "zebra", "f1", "[f9]"])
def test_what_is_not_there_is_not_found(scopes: Scopes, asked: str) -> None:
    """Words that nobody said, handles of nothing."""
    assert scopes.answer({"input": asked}) == "nothing found"


def test_another_sessions_items_stay_there(cm: ContextManager, scopes: Scopes) -> None:
    """As do another tenant's, and those of a session that was erased."""
    cm.prepare("other", [user("My secret is 42.")], 4000)
    item = item_of_event(cm.session("other").events()[0].id)
    assert scopes.answer({"input": item}).startswith("error: session 's' has no item")
    assert scopes.answer({"input": "it_" + "0" * 32}).startswith("error: no item")
    assert cm.for_tenant("b").session("s").scopes.answer({"input": "port"}) == "error: no session 's'"
    cm.session("s").erase()
    with pytest.raises(NotFound):
        scopes.recall("port")


def test_a_long_answer_is_cut(cm: ContextManager, scopes: Scopes) -> None:
    """Within 20,000 characters, and says so."""
    cm.session("s").append([{"role": "user", "content": "marmot " * 9000}])
    assert scopes.answer({"input": "marmot"}).endswith("characters]")
