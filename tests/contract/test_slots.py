"""Compressed memories in SQL: what a state stands for, versions, tenants; both databases."""

from __future__ import annotations

from ctxmem.ports import SlotName
from ctxmem.records import LedgerEntry
from tests.contract.conftest import Log

MAKER = "model-adapter-1"


def names(log: Log, session: str, *texts: str) -> list[SlotName]:
    """The names of memories of events that say these texts."""
    return [SlotName(log.tenant, session, event.id) for event in log.say(session, *texts).events]


def test_a_state_stands_for_what_was_folded_into_it(log: Log) -> None:
    """In the order of the conversation, an earlier state at its seat."""
    one, two, state = log.say("s", "one", "two", "state").events
    earlier = log.say("s", "earlier state").events[0]
    for event, seat in ((two, None), (one, None), (earlier, -0.5)):
        log.book("s", LedgerEntry("s", 0, 1, event.id, "memory", into=state.id, seat=seat))
    found = log.store.slots.folded(SlotName(log.tenant, "s", state.id))
    assert [event.id for event in found] == [earlier.id, one.id, two.id]
    assert log.store.slots.folded(SlotName("another", "s", state.id)) == []
    assert log.store.slots.folded(SlotName(log.tenant, "s", one.id)) == []


def test_a_memory_is_kept_as_it_was_last_made(log: Log) -> None:
    """For its maker, its session and its tenant alone."""
    (name,) = names(log, "s", "state")
    slots = log.store.slots
    assert slots.slots(name, MAKER) is None
    assert slots.keep(name, MAKER, b"first", versions=2)
    assert slots.keep(name, MAKER, b"second", versions=2)
    assert slots.slots(name, MAKER) == b"second"
    assert slots.slots(name, "another model") is None
    assert slots.slots(SlotName("another", "s", name.event_id), MAKER) is None
    assert slots.slots(SlotName(log.tenant, "t", name.event_id), MAKER) is None


def test_only_the_newest_versions_of_a_session_stay(log: Log) -> None:
    """Other sessions keep theirs."""
    slots, others = log.store.slots, names(log, "t", "state")
    mine = names(log, "s", *map(str, range(4)))
    for name in [*others, *mine]:
        slots.keep(name, MAKER, name.event_id.encode(), versions=2)
    kept = [slots.slots(name, MAKER) for name in [*others, *mine]]
    assert kept == [others[0].event_id.encode(), None, None, mine[2].event_id.encode(), mine[3].event_id.encode()]


def test_nothing_is_kept_for_an_event_that_is_gone(log: Log) -> None:
    """A memory that was being made while its session was erased."""
    (name,) = names(log, "s", "state")
    log.store.erase_session(log.tenant, "s")
    assert not log.store.slots.keep(name, MAKER, b"late", versions=2)
    assert log.store.slots.slots(name, MAKER) is None
