"""Scopes that a caller opens and ends: what is sent, what is refused, what comes back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ctxmem.chat import decode
from ctxmem.compressors.pencil.marks import Mark
from ctxmem.errors import Conflict, CtxmemError, InvalidInput, NotFound
from ctxmem.manager import ContextManager
from ctxmem.manager.scopes import Scopes
from ctxmem.testing import tool_call, tool_result
from tests.unit.manager.conftest import open_manager
from tests.unit.manager.test_arrive import SYSTEM, user
from tests.unit.manager.test_build import sentence

ON = "Go on, please."


def texts(plan: Any) -> list[str]:
    return [message.text or "call" for message in plan.render()]


def said(cm: ContextManager, *more: dict[str, Any], policy: str | None = None) -> list[str]:
    """What is sent after these messages, or after a word to go on; the words to go on are left out."""
    sent = texts(cm.prepare("s", list(more) or [user(ON)], 4000, policy=policy))
    return [text for text in sent if text != ON]


@pytest.fixture
def scopes(cm: ContextManager) -> Scopes:
    """Of a session in which something was said."""
    cm.prepare("s", [SYSTEM, user("Fix it.")], 4000)
    cm.record("s", "I look.")
    return cm.session("s").scopes


def work(cm: ContextManager, id: str) -> None:
    """A call and its result."""
    cm.session("s").append([tool_call(id), tool_result(id, sentence(3, 60))])


class TestFolding:
    @pytest.mark.parametrize("policy", ["balanced", "none", "mem1", "pencil"])
    def test_a_scope_is_its_task_and_answer(self, cm: ContextManager, scopes: Scopes, policy: str) -> None:
        """Under every policy; what stood before keeps its bytes."""
        opened = scopes.open("find\nthe bug")
        work(cm, "a")
        open_view = said(cm, policy=policy)
        work(cm, "b")
        assert open_view[3] == f"[subtask {opened.scope}] find the bug"
        done = scopes.end(Mark("return", opened.scope, "it is in parse()"))
        view = said(cm, policy=policy)
        assert view[:3] == open_view[:3] == [SYSTEM["content"], "Fix it.", "I look."]
        assert view[3:] == [
            f"[subtask {opened.scope}] find the bug\n[result of {opened.scope}] it is in parse()",
        ]
        assert (done.open, done.unverified) == ((), ())

    def test_nested_scopes_end_inside_out(self, cm: ContextManager, scopes: Scopes) -> None:
        """The outer one's fold takes the inner one's in."""
        outer, work_ = scopes.open("outer").scope, work
        work_(cm, "a")
        inner = scopes.open("inner").scope
        work_(cm, "b")
        with pytest.raises(Conflict, match=f"innermost open one is {inner}"):
            scopes.end(Mark("return", outer, "x"))
        assert scopes.end(Mark("abort", inner, "no such file")).open == (outer,)
        view = said(cm)
        assert view[-1] == f"[subtask {inner}] inner\n[aborted {inner}] no such file"
        scopes.end(Mark("return", outer, "all done"))
        assert said(cm)[3:] == [f"[subtask {outer}] outer\n[result of {outer}] all done"]

    def test_a_tail_goes_on_with_a_smaller_task(self, cm: ContextManager, scopes: Scopes) -> None:
        """As often as it likes; the mark never moves."""
        scope = scopes.open("1 to 3").scope
        for left in ("2 to 3", "3 to 3"):
            work(cm, left)
            assert scopes.end(Mark("tail", scope, left)).open == (scope,)
            assert said(cm)[3:] == [f"[subtask {scope}] {left}"]
        scopes.end(Mark("return", scope, "done"))
        assert said(cm)[3:] == [f"[subtask {scope}] 3 to 3\n[result of {scope}] done"]

    def test_what_a_user_says_in_a_scope_stays(self, cm: ContextManager, scopes: Scopes) -> None:
        scope = scopes.open("look").scope
        said(cm, user("Do not touch main."))
        cm.record("s", sentence(1, 50))
        scopes.end(Mark("return", scope, "done"))
        assert said(cm)[3:] == [f"[subtask {scope}] look\n[result of {scope}] done", "Do not touch main."]

    def test_a_scope_never_returned_lets_the_session_go_on(self, cm: ContextManager, scopes: Scopes) -> None:
        """Its mark stays through epochs; the return that comes at last folds what is left."""
        scope = scopes.open("look").scope
        for i in range(60):
            plan = cm.prepare("s", [user(sentence(i, 30))], 400)
            cm.record("s", sentence(100 + i, 20))
            assert plan.receipt.tokens <= 400
        assert any(text.startswith(f"[subtask {scope}]") for text in texts(plan))
        scopes.end(Mark("return", scope, "at last"))
        folded = cm.prepare("s", [user("And?")], 400)
        assert f"[subtask {scope}] look\n[result of {scope}] at last" in texts(folded)

    def test_clients_that_resend_everything_never_meet_a_mark(self, cm: ContextManager, scopes: Scopes) -> None:
        """Their history is the same branch."""
        history: list[Any] = [SYSTEM, user("Fix it."), {"role": "assistant", "content": "I look."}]
        scope = scopes.open("look").scope
        history += [tool_call("a"), tool_result("a", sentence(1, 60))]
        cm.prepare("s", history, 4000)
        scopes.end(Mark("return", scope, "done"))
        view = said(cm, *history, user("And?"))
        assert view[3:] == [f"[subtask {scope}] look\n[result of {scope}] done", "And?"]
        assert cm.session("s").head.branches == 1


class TestReceipts:
    def test_folded_events_are_listed_once_and_restore(self, cm: ContextManager, scopes: Scopes) -> None:
        scope = scopes.open("look").scope
        work(cm, "a")
        scopes.end(Mark("return", scope, "done"))
        plan = cm.prepare("s", [user("And?")], 4000)
        decisions = [item.decision for item in plan.receipt.items]
        assert decisions == ["kept"] * 3 + ["folded"] * 4 + ["kept"] * 2
        assert cm.restore(plan.receipt.items[4].item_id) == tool_call("a")
        assert cm.replay(plan.receipt.id).identical

    def test_expanding_gives_what_was_said(self, cm: ContextManager, scopes: Scopes) -> None:
        """Folded or not, of nested scopes too."""
        outer = scopes.open("outer").scope
        work(cm, "a")
        inner = scopes.open("inner").scope
        work(cm, "b")
        scopes.end(Mark("return", inner, "x"))
        said(cm)
        scopes.end(Mark("return", outer, "y"))
        said(cm, user("after"))
        for scope, calls in ((outer, "ab"), (inner, "b")):
            wanted = [m for id in calls for m in (tool_call(id), tool_result(id, sentence(3, 60)))]
            told = [decode(event.raw) for event in scopes.expand(scope)]
            assert [message for message in told if message != user(ON)] == wanted

    def test_an_answer_is_checked_against_what_the_scope_saw(self, cm: ContextManager, scopes: Scopes) -> None:
        scope = scopes.open("what is in ticket 7").scope
        cm.session("s").append([tool_call("a"), tool_result("a", "OPS-417 costs 250 euro")])
        done = scopes.end(Mark("return", scope, "ticket 7 costs 250, see /etc/made/up and 999"))
        assert done.unverified == ("/etc/made/up", "999")


class TestRefusals:
    @pytest.mark.parametrize(
        ("act", "text", "error"),
        [
            ("return", "", InvalidInput),
            ("return", " \n", InvalidInput),
            ("return", "x" * 100_000, InvalidInput),
            ("abort", "", InvalidInput),
            ("tail", "", InvalidInput),
        ],
    )
    def test_bad_texts(self, scopes: Scopes, act: Any, text: str, error: type[CtxmemError]) -> None:
        scope = scopes.open("look").scope
        with pytest.raises(error):
            scopes.end(Mark(act, scope, text))
        assert [frame.scope for frame in scopes.frames()] == [scope]

    @pytest.mark.parametrize("scope", ["f0", "f1", "f99", "x", "f-1", "f１", "f" + "9" * 30])
    def test_unknown_scopes(self, scopes: Scopes, scope: str) -> None:
        with pytest.raises(NotFound):
            scopes.end(Mark("return", scope, "x"))
        with pytest.raises(NotFound):
            scopes.expand(scope)

    def test_a_waiting_call_blocks_a_return_not_an_abort(self, cm: ContextManager, scopes: Scopes) -> None:
        """Nor can a scope begin while one waits: the answer would stand inside, its call outside."""
        scope = scopes.open("look").scope
        cm.session("s").append([tool_call("a")])
        with pytest.raises(Conflict, match="unanswered tool calls: a"):
            scopes.end(Mark("return", scope, "x"))
        with pytest.raises(Conflict, match="unanswered tool calls: a"):
            scopes.open("deeper")
        cm.session("s").append([tool_result("a", "42")])
        scopes.end(Mark("return", scope, "42"))

    def test_depth_is_capped(self, scopes: Scopes) -> None:
        for depth in range(8):
            scopes.open(f"level {depth}")
        with pytest.raises(Conflict, match="8 subtasks"):
            scopes.open("level 8")

    def test_an_ended_scope_ends_once(self, cm: ContextManager, scopes: Scopes) -> None:
        """The same answer again is a retry; another one is refused."""
        scope = scopes.open("look").scope
        first = scopes.end(Mark("return", scope, "done"))
        assert scopes.end(Mark("return", scope, "done")) == first
        with pytest.raises(Conflict):
            scopes.end(Mark("return", scope, "not done"))
        said(cm)
        with pytest.raises(Conflict):
            scopes.end(Mark("return", scope, "done"))

    def test_opening_again_with_nothing_said_is_a_retry(self, cm: ContextManager, scopes: Scopes) -> None:
        assert scopes.open("look").scope == scopes.open("look").scope
        work(cm, "a")
        assert scopes.open("look").open != scopes.open("look more").open

    def test_a_session_nobody_spoke_in_has_no_scopes(self, cm: ContextManager) -> None:
        with pytest.raises(NotFound):
            cm.session("nobody").scopes.open("look")


class TestIsolated:
    def test_it_sees_its_task_alone(self, cm: ContextManager, scopes: Scopes) -> None:
        """And what it is given; the session that opened it sees the answer alone."""
        item = cm.prepare("s", [user("The key is 7.")], 4000).receipt.items[-1].item_id
        opened = scopes.open("count", visibility="isolated", refs=[item])
        assert opened.session_id == f"s~{opened.scope}"
        plan = cm.prepare(opened.session_id, [SYSTEM, user("Start.")], 4000)
        assert texts(plan) == [SYSTEM["content"], f"[task] count\n[given {item}] The key is 7.", "Start."]
        cm.record(opened.session_id, tool_call("a"))
        with pytest.raises(Conflict, match="unanswered"):
            scopes.end(Mark("return", opened.scope, "9"))
        cm.session(opened.session_id).append([tool_result("a", "9 of them")])
        assert scopes.end(Mark("return", opened.scope, "9")).unverified == ()
        assert said(cm)[-1] == f"[subtask {opened.scope}] count\n[result of {opened.scope}] 9"
        assert len(scopes.expand(opened.scope)) == 5

    def test_it_is_erased_with_its_session(self, cm: ContextManager, scopes: Scopes) -> None:
        opened = scopes.open("count", visibility="isolated")
        cm.session("s").erase()
        with pytest.raises(NotFound):
            cm.session(opened.session_id).events()


def test_two_processes_and_a_restart_agree(tmp_path: Path) -> None:
    """Marks are in the log: a manager that was open before, and one that opens after, see the same scopes."""
    first, second = (open_manager(tmp_path / "log.db") for _ in range(2))
    first.prepare("s", [SYSTEM, user("Fix it.")], 4000)
    second.prepare("s", [user("Well?")], 4000)
    outer = first.session("s").scopes.open("outer").scope
    inner = second.session("s").scopes.open("inner").scope
    assert [frame.scope for frame in first.session("s").scopes.frames()] == [outer, inner]
    first.session("s").scopes.end(Mark("return", inner, "x"))
    first.close()
    second.close()
    third = open_manager(tmp_path / "log.db")
    assert [frame.scope for frame in third.session("s").scopes.frames()] == [outer]
    third.close()


def test_of_many_returns_at_once_one_counts(cm: ContextManager, scopes: Scopes) -> None:
    """The rest are told that the scope has ended."""
    scope = scopes.open("look").scope
    refused: list[Conflict] = []

    def give(answer: str) -> None:
        try:
            scopes.end(Mark("return", scope, answer))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=give, args=(f"answer {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert sum("result of" in text for text in said(cm)) == 1
