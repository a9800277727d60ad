"""Lookahead: what it brings in, what it never does, and when it stops."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.retrieval.tiered.lookahead import Gate, Ticket
from tests.unit.retrieval.test_tiered import clustered, filled

NEVER = 1e9
"""Seconds that set no limit to what is fetched."""


@pytest.fixture
def index(tmp_path: Path) -> TieredIndex:
    return filled(tmp_path, probed=4)


def test_a_search_uses_what_its_ticket_brought_in(index: TieredIndex) -> None:
    """The clusters of the question itself are all there; the account says so, and the ticket has ended."""
    query = clustered(1, seed=3)[0]
    ticket = index.lookahead(query, expect=NEVER)
    assert ticket.wait(5)
    assert len(ticket.fetched) == 8
    hits = index.find(query, 5, ticket=ticket)
    assert (hits.lists, hits.fetched) == (4, 4)
    assert ticket.ended
    assert ticket.feed(query) == 0


def test_feeding_adds_only_what_is_new(index: TieredIndex) -> None:
    one, other = clustered(2, seed=3)
    with index.lookahead(one, expect=NEVER, lists=4) as ticket:
        assert ticket.feed(one) == 1  # settled: a quarter more than a search's
        assert ticket.feed(one) == 0
        added = ticket.feed(other)
        assert 0 < added <= 4
        assert ticket.wait(5)
        assert len(ticket.fetched) == 5 + added
    assert ticket.ended


def test_a_text_that_settles_is_worth_more(index: TieredIndex) -> None:
    """Half of the question's clusters at first, and of each next text's the more, the less it differs from before."""
    one, other = np.eye(16, dtype=np.float32)[:2]
    with index.lookahead(one, expect=NEVER, growing=True) as ticket:
        assert len(ticket._asked) == 2
        assert ticket.feed(one) == 3
    for part, most in ((0.5, 2), (0.8, 3), (0.87, 4), (0.95, 5)):
        with index.lookahead(one, expect=NEVER, lists=0) as ticket:
            assert ticket.feed(part * one + (1 - part**2) ** 0.5 * other) == most


def test_the_budget_is_time_at_the_disks_speed(index: TieredIndex) -> None:
    """No time, nothing; a little, a little."""
    query = clustered(1)[0]
    assert not index.lookahead(query, expect=0.0).fetched
    index._loader.speed = 1e6
    ticket = index.lookahead(query, expect=0.005, lists=40)
    assert ticket.wait(5)
    assert 0 < ticket.bytes <= 5000


def test_a_cancelled_ticket_is_not_read_for(index: TieredIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being read ends at the next piece, what is queued is never begun."""
    segment = index.segment
    assert segment is not None
    begun, go, read = threading.Event(), threading.Event(), []

    def slow(offset: int, length: int) -> int:
        begun.set()
        go.wait(5)
        read.append(offset)
        return length

    monkeypatch.setattr(segment, "touch", slow)
    ticket = index.lookahead(clustered(1)[0], expect=NEVER, lists=20)
    assert begun.wait(5)
    ticket.cancel()
    after = index.lookahead(clustered(1, seed=8)[0], expect=NEVER, lists=1)
    go.set()
    assert after.wait(5)
    assert len(read) == 2


def test_results_are_the_same_with_and_without(index: TieredIndex) -> None:
    """Over thousands of random tickets, fed, cancelled, used late or never, and a disk that fails."""
    rng, queries = random.Random(1), clustered(500, seed=4)
    plain = [index.find(query, 5).matches for query in queries]
    open_tickets: list[Ticket] = []
    for _ in range(2000):
        at = rng.randrange(500)
        ticket = index.lookahead(queries[rng.randrange(500)], expect=rng.choice([0.0, 0.001, NEVER]))
        if rng.random() < 0.5:
            ticket.feed(queries[at])
        if rng.random() < 0.3:
            ticket.cancel()
        open_tickets.append(ticket)
        used = open_tickets.pop(rng.randrange(len(open_tickets))) if rng.random() < 0.7 else None
        assert index.find(queries[at], 5, ticket=used).matches == plain[at]
    for ticket in open_tickets:
        ticket.cancel()


def test_a_disk_that_fails_is_left_to_the_search(index: TieredIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = index.segment
    assert segment is not None
    monkeypatch.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
    ticket = index.lookahead(clustered(1)[0], expect=NEVER)
    time.sleep(0.05)
    assert not ticket.fetched
    ticket.cancel()


def test_what_is_of_no_use_is_given_up_and_tried_again() -> None:
    """After fifty tickets of which a fifth was not used; one in twenty is still served."""
    gate = Gate()
    for _ in range(50):
        assert gate.open()
        gate.told(1000, 100)
    assert gate.useful == pytest.approx(0.1)
    assert sum(gate.open() for _ in range(200)) == 10
    for _ in range(50):
        gate.told(1000, 900)
    assert gate.open()


def test_an_index_in_memory_needs_none(tmp_path: Path) -> None:
    index = TieredIndex(tmp_path, "e", 16)
    index.add(["a"], clustered(1))
    ticket = index.lookahead(clustered(1)[0], expect=NEVER)
    assert ticket.ended
    assert index.find(np.asarray(clustered(1)[0]), 1, ticket=ticket).matches[0].id == "a"


def test_it_works_after_a_fork(index: TieredIndex) -> None:
    """As under a server that forks its workers."""
    assert index.lookahead(clustered(1)[0], expect=NEVER).wait(5)
    child = os.fork()
    if not child:
        ticket = index.lookahead(clustered(1, seed=2)[0], expect=NEVER)
        os._exit(0 if ticket.wait(5) and ticket.fetched else 1)
    assert os.waitpid(child, 0)[1] == 0
