"""What ctxmem puts into a context is an event like any other: replayed, listed, restored, forgotten with its branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ctxmem.compressors.fit import Fit
from ctxmem.manager import ContextManager
from ctxmem.plan import ContextPlan
from ctxmem.policy import Policy
from ctxmem.types import Segment
from tests.unit.manager.conftest import open_manager
from tests.unit.manager.test_arrive import SYSTEM, assistant, user
from tests.unit.manager.test_build import converse, sentence


def recall(plan: ContextPlan) -> ContextPlan:
    """Two found segments right before a newest user message that is new."""
    at = next((i for i, s in enumerate(plan.segments) if s.pinned and s.role == "user" and not s.frozen), None)
    if at is None:
        return plan
    found = [Segment(f"recall:{n}", "user", "retrieved", f"found {n} for {plan.query[:9]}. ", 0) for n in range(2)]
    return plan.insert(found, at, step="recall", why="similar")


def consolidate(plan: ContextPlan) -> ContextPlan:
    """All that may go becomes one state."""
    if plan.tokens <= 200:
        return plan
    ids = [s.id for s in plan.segments if not s.locked]
    state = Segment("state", "user", "state", f"state over {len(ids)} segments", 0)
    return plan.fold(ids, state, step="mem1", why="a test", action="consolidate") if ids else plan


OWN = Policy("own", (recall,), (consolidate, Fit(low=0.5)))


@pytest.fixture
def cm(path: Path) -> Iterator[ContextManager]:
    manager = open_manager(path, policy=OWN)
    yield manager
    manager.close()


def raws(plan: ContextPlan) -> list[bytes | None]:
    return [message.raw for message in plan.render()]


def test_an_insert_is_one_event_before_the_message_it_serves(cm: ContextManager):
    """Neighbouring segments of one owner are one message; the receipt lists it with its step and its kind."""
    plan = cm.prepare("s", [SYSTEM, user("question one")], 400)
    assert [m.role for m in plan.render()] == ["system", "user", "user"]
    assert plan.render()[1].text == "found 0 for question . found 1 for question . "
    items = {item.event_id: item for item in plan.receipt.items}
    found = items[plan.render()[1].id]
    assert (found.decision, found.stage, found.tokens_before) == ("retrieved", "recall", 0)
    assert plan.receipt.parts["retrieved"] == found.tokens_after > 0
    assert (plan.scope.tenant, plan.scope.session_id, plan.scope.turn, plan.scope.depth) == ("default", "s", 1, 2)
    assert cm.restore(found.item_id)["content"] == plan.render()[1].text


def test_what_was_inserted_stays_until_an_epoch(cm: ContextManager):
    """Request n+1 begins with request n, inserts included, for a client that never saw them."""
    previous: list[bytes | None] = []
    epochs = 0
    for plan in converse(cm, 40):
        epochs += plan.receipt.action == "epoch"
        if plan.receipt.action != "epoch":
            assert previous == raws(plan)[: len(previous)]
        previous = raws(plan)
    assert epochs > 2


@pytest.mark.parametrize("full", [False, True], ids=["delta", "full"])
def test_a_cold_process_goes_on_with_the_same_bytes(path: Path, full: bool):
    """Hot and rebuilt states render alike, seat by seat; receipts name each event once and replay is identical."""
    said = [SYSTEM]
    hot = open_manager(path, policy=OWN)
    for i in range(30):
        cold = open_manager(path, policy=OWN)
        fresh = user(sentence(i, 30))
        said.append(fresh)
        sent = said if full else [fresh] if i else said
        live = hot.engine.hot.load("default", hot.session("s").head, 0) if i else None
        again = cold.engine.hot.load("default", cold.session("s").head, 0) if i else None
        assert (live and [(i.message.raw, i.seat, i.message.kind) for i in live.items]) == (
            again and [(i.message.raw, i.seat, i.message.kind) for i in again.items]
        )
        plan = hot.prepare("s", sent, 400)
        ids = [item.event_id for item in plan.receipt.items]
        assert len(ids) == len(set(ids)) == len(cold.session("s").events())
        replayed = cold.replay(plan.receipt.id)
        assert replayed.identical and [m.raw for m in replayed.messages] == raws(plan)
        said.append(assistant(f"answer {i}"))
        hot.record("s", f"answer {i}")
        cold.close()
    hot.close()


def test_a_fold_names_what_stands_for_the_folded(cm: ContextManager, path: Path):
    """Every consolidated event points at the state that took its place, and restores."""
    for plan in converse(cm, 20):
        if plan.receipt.action == "epoch":
            break
    state = next(m for m in plan.render() if m.kind == "state")
    entries = cm.engine.store.ledger("default", "s", 0)
    folded = [entry for entry in entries.values() if entry.decision == "consolidated"]
    assert folded and {entry.into for entry in folded} == {state.id}
    for item in plan.receipt.items:
        assert cm.original(item.item_id)


def test_an_edited_question_leaves_its_recall_behind(cm: ContextManager):
    """A branch forked before an insert does not carry it."""
    first = [SYSTEM, user("question one")]
    cm.prepare("s", first, 400)
    cm.record("s", "answer one")
    old = cm.prepare("s", [*first, assistant("answer one"), user("question two")], 400)
    new = cm.prepare("s", [*first, assistant("answer one"), user("other matter")], 400)
    assert [m.text for m in old.render()][:4] == [m.text for m in new.render()][:4]
    assert new.render()[-2].text == "found 0 for other mat. found 1 for other mat. "
    assert len(new.render()) == len(old.render())


def test_a_retry_inserts_nothing_again(cm: ContextManager):
    """The same history again is the same context."""
    sent = [SYSTEM, user("question one")]
    assert raws(cm.prepare("s", sent, 400)) == raws(cm.prepare("s", sent, 400))
    assert len(cm.session("s").events()) == 3


def test_an_insert_at_the_end_keeps_its_place(path: Path):
    """What comes after the newest message stays there when the conversation goes on."""

    def remind(plan: ContextPlan) -> ContextPlan:
        note = Segment("note", "user", "state", f"note after {plan.query}", 0)
        return plan.insert([note], len(plan.segments), step="remind", why="a test")

    cm = open_manager(path, policy=replace(OWN, arrival=(remind,)))
    cm.prepare("s", [user("one")], 400)
    cm.record("s", "answer")
    plan = cm.prepare("s", [user("two")], 400)
    assert [m.text for m in plan.render()] == ["one", "note after one", "answer", "two", "note after two"]
    cm.close()
