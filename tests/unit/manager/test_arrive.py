"""Where a call's messages belong: session, branch, and what of them is new."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ctxmem.chat import parse
from ctxmem.errors import InvalidInput
from ctxmem.manager import Call, ContextManager

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def call(*messages, **fields):
    return Call(tuple(parse(message) for message in messages), **fields)


def log(cm, session_id, tenant_events=False):
    events = cm.session(session_id).events()
    return [(event.branch, event.role, parse(event.raw).text) for event in events]


class TestNamedSessions:
    def test_a_client_that_resends_all_history_logs_each_message_once(self, cm: ContextManager):
        """The second request's first messages are those of the first, and the recorded answer."""
        cm.prepare("s", [SYSTEM, user("one")])
        cm.record("s", "first")
        plan = cm.prepare("s", [SYSTEM, user("one"), assistant("first"), user("two")])
        assert log(cm, "s") == [
            (0, "system", "Be brief."),
            (0, "user", "one"),
            (0, "assistant", "first"),
            (0, "user", "two"),
        ]
        assert [SYSTEM, user("one"), assistant("first"), user("two")] == plan.messages()

    def test_a_client_that_sends_what_is_new_gets_the_whole_history(self, cm: ContextManager):
        """The session remembers what the client does not resend, the system message too."""
        cm.prepare("s", [SYSTEM, user("one")])
        cm.record("s", "first")
        assert [SYSTEM, user("one"), assistant("first"), user("two")] == cm.prepare("s", [user("two")]).messages()
        cm.record("s", "second")
        cm.prepare("s", [user("three")])
        assert [text for _, _, text in log(cm, "s")] == ["Be brief.", "one", "first", "two", "second", "three"]

    def test_a_delta_client_may_say_the_same_thing_twice(self, cm: ContextManager):
        """`continue` after `continue` is a new turn, not a retry."""
        for text in ("start", "continue", "continue"):
            cm.prepare("s", [user(text)])
            cm.record("s", f"did {text}")
        assert [text for _, _, text in log(cm, "s")] == [
            "start",
            "did start",
            "continue",
            "did continue",
            "continue",
            "did continue",
        ]

    def test_a_delta_client_may_resend_the_system_message(self, cm: ContextManager):
        """The same system message again is not logged again."""
        for text in ("one", "two", "three"):
            plan = cm.prepare("s", [SYSTEM, user(text)])
            cm.record("s", f"re {text}")
        assert [m["role"] for m in plan.messages()] == ["system", "user", "assistant", "user", "assistant", "user"]

    def test_a_changed_system_message_takes_the_place_of_the_old_one(self, cm: ContextManager):
        """The old one stays in the log and the receipt says what happened to it."""
        cm.prepare("s", [SYSTEM, user("one")])
        cm.record("s", "first")
        plan = cm.prepare("s", [{"role": "system", "content": "Be long."}, user("two")])
        assert [m["content"] for m in plan.messages()] == ["Be long.", "one", "first", "two"]
        fates = {item.reason for item in plan.report.receipt.items if item.decision == "dropped"}
        assert {"superseded by the client"} == fates
        assert len(plan.report.receipt.items) == 5

    def test_the_answer_may_come_back_in_another_form(self, cm: ContextManager):
        """SDKs add nulls and empty lists to the answers they resend; that makes no new event."""
        cm.prepare("s", [user("one")])
        cm.record("s", {"role": "assistant", "content": "first", "refusal": None, "annotations": []})
        cm.prepare("s", [user("one"), assistant("first"), user("two")])
        assert [text for _, _, text in log(cm, "s")] == ["one", "first", "two"]


class TestBranches:
    def test_an_edited_history_becomes_a_branch(self, cm: ContextManager):
        """Both versions stay in the log; the request is made of the edited one."""
        cm.prepare("s", [user("one")])
        cm.record("s", "first")
        cm.prepare("s", [user("one"), assistant("first"), user("two")])
        cm.record("s", "second")
        plan = cm.prepare("s", [user("one"), assistant("first"), user("other")])
        assert [m["content"] for m in plan.messages()] == ["one", "first", "other"]
        assert [(b, text) for b, _, text in log(cm, "s")][2:] == [(0, "two"), (0, "second"), (1, "other")]

    def test_a_client_may_go_back_to_an_earlier_branch(self, cm: ContextManager):
        """The branch continues where it stopped."""
        base = [user("one"), assistant("first")]
        cm.prepare("s", base[:1])
        cm.record("s", "first")
        for text in ("left", "right"):
            cm.prepare("s", [*base, user(text)])
            cm.record("s", f"went {text}")
        plan = cm.prepare("s", [*base, user("left"), assistant("went left"), user("on")])
        assert [m["content"] for m in plan.messages()] == ["one", "first", "left", "went left", "on"]
        assert log(cm, "s")[-1] == (0, "user", "on")

    @pytest.mark.parametrize("restarted", [False, True])
    def test_what_was_appended_is_known_when_it_is_sent(self, cm: ContextManager, path, restarted: bool):
        """A log brought in by `append`, system message and all, is the history that its client resends."""
        from tests.unit.manager.conftest import open_manager

        history = [SYSTEM, user("one"), assistant("first")]
        cm.session("s").append(history)
        other = open_manager(path) if restarted else cm
        plan = other.prepare("s", [*history, user("two")])
        assert plan.messages() == [*history, user("two")]
        assert [text for _, _, text in log(other, "s")] == ["Be brief.", "one", "first", "two"]

    def test_full_and_delta_clients_may_share_a_session(self, cm: ContextManager):
        """Each request is understood by what it says, whoever sent the one before."""
        history = [SYSTEM, user("one"), assistant("first"), user("two")]
        cm.prepare("s", history)
        cm.record("s", "second")
        whole = [*history, assistant("second"), user("three")]
        assert cm.prepare("s", [user("three")]).messages() == whole
        cm.record("s", "third")
        whole += [assistant("third"), user("four")]
        assert cm.prepare("s", whole).messages() == whole
        cm.record("s", "fourth")
        whole += [assistant("fourth"), user("five")]
        assert cm.prepare("s", [user("five")]).messages() == whole
        assert [branch for branch, _, _ in log(cm, "s")] == [0] * len(whole)

    def test_a_retried_request_logs_nothing_new(self, cm: ContextManager):
        """The chain finds the events that the first try made."""
        first = cm.build(call(user("one"), session_id="s"))
        again = cm.build(call(user("one"), session_id="s", retry=True))
        assert len(log(cm, "s")) == 1
        assert first.messages == again.messages

    def test_a_second_answer_to_one_request_is_a_branch(self, cm: ContextManager):
        """As with n=2: whichever the client goes on with is found."""
        request = cm.build(call(user("one"), session_id="s"))
        for text in ("first", "other"):
            cm.answer(request.request_id, b'{"role":"assistant","content":"%s"}' % text.encode())
        plan = cm.prepare("s", [user("one"), assistant("other"), user("two")])
        assert [(b, text) for b, _, text in log(cm, "s")] == [(0, "one"), (0, "first"), (1, "other"), (1, "two")]
        assert [m["content"] for m in plan.messages()] == ["one", "other", "two"]

    def test_the_same_answer_twice_is_one_event(self, cm: ContextManager):
        """Recording is idempotent."""
        request = cm.build(call(user("one"), session_id="s"))
        raw = b'{"role":"assistant","content":"first"}'
        assert cm.answer(request.request_id, raw) == cm.answer(request.request_id, raw)
        assert len(log(cm, "s")) == 2

    def test_concurrent_turns_are_all_logged(self, cm: ContextManager):
        """Twenty delta clients at once on one session: nobody's message is lost."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: cm.build(call(user(f"m{i}"), session_id="s", history="delta")), range(20)))
        assert {f"m{i}" for i in range(20)} == {text for _, _, text in log(cm, "s")}


class TestUnnamedSessions:
    def test_the_chain_finds_the_session(self, cm: ContextManager):
        """Nobody named it; the history does."""
        first = cm.build(call(SYSTEM, user("one")))
        cm.answer(first.request_id, b'{"role":"assistant","content":"first"}')
        second = cm.build(call(SYSTEM, user("one"), assistant("first"), user("two")))
        assert first.session_id == second.session_id

    def test_two_conversations_that_begin_alike_are_two_sessions(self, cm: ContextManager):
        """`hi` from two people is two sessions."""
        assert cm.build(call(user("hi"))).session_id != cm.build(call(user("hi"))).session_id

    def test_another_tenant_never_joins(self, cm: ContextManager):
        """The same history under another tenant is another session."""
        first = cm.build(call(user("one"), assistant("first"), user("two")))
        other = cm.for_tenant("other").build(call(user("one"), assistant("first"), user("two")))
        assert first.session_id != other.session_id

    def test_the_session_is_found_after_a_restart(self, cm: ContextManager, path):
        """The chain is in the store, not only in the process."""
        from tests.unit.manager.conftest import open_manager

        first = cm.build(call(user("one")))
        cm.answer(first.request_id, b'{"role":"assistant","content":"first"}')
        cm.close()
        reopened = open_manager(path)
        second = reopened.build(call(user("one"), assistant("first"), user("two")))
        reopened.close()
        assert first.session_id == second.session_id


class TestBadInput:
    @pytest.mark.parametrize(
        "messages",
        [
            [],
            "hello",
            {"role": "user", "content": "x"},
            None,
            [{"role": "nobody", "content": "x"}],
            [{"content": "x"}],
            [{"role": "user", "content": 3}],
            [{"role": "user", "content": ["x"]}],
            [{"role": "user", "content": "x", "name": 3}],
            [{"role": "assistant", "tool_calls": "x"}],
            [{"role": "user", "content": "\ud800"}],
            [{"role": "user", "content": float("nan")}],
            [b"{"],
            [b"[]"],
            [b"\xff"],
            [b'{"role":"user","content":' + b"[" * 100_000],
            ["text"],
        ],
    )
    def test_wrong_messages_are_refused_and_nothing_is_logged(self, cm: ContextManager, messages):
        """The error is typed and the session does not come to be."""
        with pytest.raises(InvalidInput):
            cm.prepare("s", messages)
        assert cm.engine.store.session("default", "s") is None

    @pytest.mark.parametrize("session", ["", "x" * 257, "a\nb", 3])
    def test_wrong_session_ids_are_refused(self, cm: ContextManager, session):
        """An id is 1 to 256 printable characters."""
        with pytest.raises(InvalidInput):
            cm.prepare(session, [user("x")])

    @pytest.mark.parametrize("budget", [0, -1, True, 1.5, "10"])
    def test_wrong_budgets_are_refused(self, cm: ContextManager, budget):
        """A budget is a whole, positive number of tokens."""
        with pytest.raises(InvalidInput):
            cm.prepare("s", [user("x")], budget)

    def test_unknown_policies_are_refused(self, cm: ContextManager):
        """No silent substitution."""
        with pytest.raises(InvalidInput):
            cm.prepare("s", [user("x")], policy="magic")
