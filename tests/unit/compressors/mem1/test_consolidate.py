"""The policy `mem1`: the state rides in the log, under its bound, and what it holds can be traced."""

from __future__ import annotations

from pathlib import Path

from ctxmem.compressors.mem1.consolidate import TITLE, read
from ctxmem.testing import WordCounter
from tests.unit.manager.conftest import open_manager
from tests.unit.manager.test_build import converse


def test_a_long_session_holds_one_bounded_state(tmp_path: Path):
    """After its first epoch every request has one state, within half of the low mark; budgets hold throughout."""
    cm = open_manager(tmp_path / "log.db", policy="mem1")
    seen = 0
    for plan in converse(cm, 120, budget=600):
        assert WordCounter().request(plan.render()) <= 600
        states = [m for m in plan.render() if m.kind == "state"]
        seen += bool(states)
        if seen:
            assert len(states) == 1 and states[0].text.startswith(TITLE)
            assert WordCounter().messages(states)[0] <= 600 * 0.35 * 0.5
    assert seen > 60
    entries = cm.engine.store.ledger("default", "s", 0)
    assert states[0].id in {entry.into for entry in entries.values() if entry.decision == "consolidated"}
    assert len(plan.receipt.items) == len(cm.session("s").events()) - 1  # the answer came after it
    assert cm.replay(plan.receipt.id).identical
    cm.close()


def test_constraints_outlast_small_talk(tmp_path: Path):
    """What the user insists on is in the state long after its turn has left."""
    cm = open_manager(tmp_path / "log.db", policy="mem1")
    cm.prepare("s", [{"role": "user", "content": "Never delete the folder named payroll-2024."}], 600)
    cm.record("s", "Understood.")
    plan = list(converse(cm, 60, budget=600, start=1))[-1]
    assert "payroll-2024" in "".join(m.text for m in plan.render() if m.kind == "state")
    cm.close()


def test_a_rendering_reads_back():
    """Ids, sections and texts; anything else on a line is no item."""
    state = read("Notes\ni4 open: (1) When?\ni9 artifacts: PL-7\ni10 orders: no\nfree text\n(+12 older items: recall)")
    assert [(i.id, i.sec, i.text) for i in state.items] == [("i4", "open", "(1) When?"), ("i9", "artifacts", "PL-7")]
    assert (state.evicted, state.last) == (12, 9)
