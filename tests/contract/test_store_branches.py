"""Paths through a session's branches, checked against a model that keeps whole lists."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxmem.ids import new_id
from ctxmem.records import Branch, Event, LedgerEntry
from ctxmem.stores.reads import CHUNK
from ctxmem.stores.sql import SqlStore
from tests.contract.conftest import Log


@dataclass
class Model:
    """Every branch as the full list of its events, and every entry that holds on it as (turn, event id, reason)."""

    paths: dict[int, list[Event]] = field(default_factory=lambda: {0: []})
    entries: dict[int, list[tuple[int, str, str]]] = field(default_factory=lambda: {0: []})

    def fork(self, number: int, parent: int, depth: int, turn: int) -> None:
        """What a fork shares: the first events, and what was decided up to its turn."""
        self.paths[number] = self.paths[parent][:depth]
        self.entries[number] = [entry for entry in self.entries[parent] if entry[0] <= turn]

    def ledger(self, number: int, turn: int | None = None) -> dict[str, str]:
        """By event, the reason of the newest entry that holds."""
        held = [entry for entry in self.entries[number] if turn is None or entry[0] <= turn]
        return {event_id: reason for _, event_id, reason in sorted(held, key=lambda entry: entry[0])}


STEPS = st.lists(
    st.tuples(st.sampled_from(["say", "fork", "book"]), st.integers(0, 99), st.integers(0, 99)), max_size=24
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_paths_and_ledgers_equal_the_model(store: SqlStore, steps: list[tuple[str, int, int]]) -> None:
    """Any tree of branches, events and decisions reads back as if every branch had been kept whole."""
    log, model = Log(store, new_id("tenant")), Model()
    log.say("s")
    for turn, (verb, which, where) in enumerate(steps):
        number = which % len(model.paths)
        path = model.paths[number]
        if verb == "say":
            path.extend(log.say("s", f"{turn}", branch=number).events)
        elif verb == "fork":
            depth = where % (len(path) + 1)
            model.fork(log.fork("s", number, depth, turn), number, depth, turn)
        elif path:
            event_id = path[where % len(path)].id
            model.entries[number].append((turn, event_id, f"turn {turn}"))
            log.book("s", LedgerEntry("s", number, turn, event_id, "kept", reason=f"turn {turn}"))
    for number, path in model.paths.items():
        assert store.history(log.tenant, "s", number) == path
        assert store.history(log.tenant, "s", number, start=1, stop=3) == path[1:3]
        for turn in (None, len(steps) // 2):
            found = store.ledger(log.tenant, "s", number, turn=turn)
            assert {event_id: entry.reason for event_id, entry in found.items()} == model.ledger(number, turn)


def test_a_fork_keeps_the_decisions_of_its_turn_and_not_the_later_ones(log: Log) -> None:
    """An entry of the parent holds for the fork when its turn is at most the fork's."""
    event = log.say("s", "hi").events[0]
    log.book("s", LedgerEntry("s", 0, 3, event.id, "kept"), LedgerEntry("s", 0, 5, event.id, "dropped"))
    number = log.fork("s", 0, 1, turn=3)
    assert log.store.ledger(log.tenant, "s", number)[event.id].decision == "kept"
    assert log.store.ledger(log.tenant, "s", 0)[event.id].decision == "dropped"
    log.book("s", LedgerEntry("s", number, 6, event.id, "pruned"))
    assert log.store.ledger(log.tenant, "s", number)[event.id].decision == "pruned"
    assert log.store.ledger(log.tenant, "s", number, turn=5)[event.id].decision == "kept"


@pytest.mark.parametrize("number_of_forks", [1, 2])
def test_a_forks_own_entry_goes_before_its_parents_of_the_same_turn(log: Log, number_of_forks: int) -> None:
    """What was decided nearest to the branch holds."""
    event = log.say("s", "hi").events[0]
    log.book("s", LedgerEntry("s", 0, 3, event.id, "kept"))
    number = 0
    for _ in range(number_of_forks):
        number = log.fork("s", number, 1, turn=3)
        log.book("s", LedgerEntry("s", number, 3, event.id, "dropped" if number == number_of_forks else "pruned"))
    assert log.store.ledger(log.tenant, "s", number)[event.id].decision == "dropped"


def test_a_chain_of_forks_of_any_length_is_followed(log: Log) -> None:
    """More ancestors than one query names."""
    said, levels = [log.say("s", "0").events[0]], CHUNK + 50
    for level in range(1, levels):
        batch = log.batch("s", str(level), branch=level)
        event = replace(batch.events[0], depth=level)
        branch = Branch("s", level, level - 1, fork_depth=level, fork_turn=level, depth=level + 1)
        log.store.write(log.tenant, replace(batch, events=(event,), branch=branch)).result()
        said.append(event)
    log.book("s", *(LedgerEntry("s", event.branch, 0, event.id, "kept") for event in said))
    assert log.store.history(log.tenant, "s", levels - 1) == said
    assert log.store.ledger(log.tenant, "s", levels - 1).keys() == {event.id for event in said}
