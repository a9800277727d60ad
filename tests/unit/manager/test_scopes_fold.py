"""The policy `pencil` through the manager: receipts, ledger, replay, restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ctxmem.manager import ContextManager
from ctxmem.testing import WordCounter
from tests.unit.compressors.pencil.test_fold import begin, give, work
from tests.unit.manager.conftest import open_manager
from tests.unit.manager.test_arrive import SYSTEM, user


def run(cm: ContextManager, *exchanges: list[dict[str, Any]], history: list[dict[str, Any]] | None = None) -> list[Any]:
    """An agent's loop: each exchange is an assistant's call, recorded, and its results, sent with the next request."""
    plans = [cm.prepare("s", [SYSTEM, user("Fix it.")], 5000, policy="pencil")]
    said = [SYSTEM, user("Fix it.")] if history is None else history
    for call, *results in exchanges:
        cm.record("s", call)
        said += [call, *results]
        plans.append(cm.prepare("s", results if history is None else said, 5000, policy="pencil"))
    return plans


SCOPE = (begin("b"), work("w1"), work("w2"), give("r"))


def test_a_scope_folds_when_its_end_arrives(tmp_path: Path) -> None:
    """Not before; then the prefix up to it is that of every request before."""
    cm = open_manager(tmp_path / "log.db")
    *before, last = run(cm, *SCOPE)
    assert [plan.receipt.action for plan in before] == ["pass"] * 4
    assert (last.receipt.action, last.receipt.reason) == ("arrival", "a subtask was folded")
    raws = [message.raw for message in last.render()]
    assert raws[:4] == [message.raw for message in before[-1].render()][:4]
    assert json.loads(raws[4] or b"") == {"role": "user", "content": "[result of the subtask] parse() is off by one"}
    assert last.receipt.tokens == WordCounter().request(last.render()) < before[-1].receipt.tokens / 3
    assert last.receipt.stable_prefix_tokens > 0
    cm.close()


def test_the_receipt_says_folded_and_all_restores(tmp_path: Path) -> None:
    """Each event once, the answer's own among them; a process that starts anew sends the same."""
    cm = open_manager(tmp_path / "log.db")
    last = run(cm, *SCOPE)[-1]
    items = last.receipt.items
    assert [item.decision for item in items] == ["kept"] * 4 + ["folded"] * 6 + ["kept"]
    assert {item.stage for item in items if item.decision == "folded"} == {"fold"}
    assert cm.restore(items[4].item_id) == work("w1")[0]
    assert cm.replay(last.receipt.id).identical
    entries = cm.engine.store.ledger("default", "s", 0)
    assert {entry.into for entry in entries.values() if entry.decision == "folded"} == {items[-1].event_id}
    sent = [message.raw for message in last.render()]
    cm.record("s", "Done.")
    cm.close()
    again = open_manager(tmp_path / "log.db")
    plan = again.prepare("s", [user("Thanks.")], 5000, policy="pencil")
    assert [message.raw for message in plan.render()][: len(sent)] == sent
    again.close()


def test_a_client_that_resends_everything_is_folded_too(tmp_path: Path) -> None:
    """Its next request begins with the folded one."""
    cm = open_manager(tmp_path / "log.db")
    said: list[dict[str, Any]] = [SYSTEM, user("Fix it.")]
    *_, folded, after = run(cm, *SCOPE, work("w3"), history=said)
    sent = [message.raw for message in folded.render()]
    assert len(sent) == 5
    assert [message.raw for message in after.render()][:5] == sent
    assert len(after.render()) == 7
    cm.close()


def test_other_policies_leave_an_agents_calls_alone(tmp_path: Path) -> None:
    cm = open_manager(tmp_path / "log.db")
    cm.prepare("s", [SYSTEM, user("Fix it."), *begin("b"), *work("w1"), *give("r")], 5000)
    plan = cm.prepare("s", [user("And?")], 5000, policy="none")
    assert len(plan.render()) == 9
    cm.close()
