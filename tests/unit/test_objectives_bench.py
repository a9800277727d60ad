"""The bench's tasks of many objectives: the script knows what stands in its prompt and nothing else."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from bench.agents import Outcome, with_manager, with_mem1
from bench.objectives import managers, world
from bench.objectives.scripted import Agent
from ctxmem.compressors.mem1.knobs import Knobs
from ctxmem.testing import WordCounter

KNOBS = Knobs(b_state=300, cadence="tokens>100", b_recall=0)


def task(size: int = 6, poison: str = "") -> world.Task:
    return world.tasks(*world.generated(3, people=60, poison=poison), size, 1, seed=5)[0]


def by_mem1(made: world.Task, knobs: Knobs = KNOBS, **script: float) -> Outcome:
    agent = Agent(made, rewrites=knobs.mode == "rewrite", random=Random(1), **script)
    return with_mem1(made, agent, WordCounter(), knobs)


def shown(made: world.Task, manager: managers.Manager) -> Outcome:
    return with_manager(made, Agent(made), WordCounter(), manager)


@pytest.mark.parametrize("mode", ["patch", "rewrite"])
def test_a_perfect_updater_loses_nothing(mode: str) -> None:
    """In a prompt that is far smaller than the history."""
    made = task(8)
    done, full = (
        by_mem1(made, Knobs(mode=mode, b_state=300, cadence="tokens>100", b_recall=0)),
        shown(made, managers.Full()),
    )  # type: ignore[arg-type]
    assert (done.exact, done.f1, done.retained) == (8.0, 8.0, 1.0)
    assert (full.exact, full.retained) == (8.0, 1.0)
    assert done.bill.own < full.bill.own / 1.5
    assert done.bill.tokens == done.bill.read + (done.bill.tokens - done.bill.read) > 0


def test_the_peak_is_flat_and_no_size_is_dearer(data: object) -> None:
    """Than the full history, whose peak grows; four tasks are few, so the bound is wider than the bench's."""
    objectives, library = world.hotpot(data)  # type: ignore[arg-type]
    peaks = []
    for size in (2, 16):
        made = world.tasks(objectives, library, size, 4, seed=1)
        done, full = [by_mem1(one, Knobs(b_state=480)) for one in made], [shown(one, managers.Full()) for one in made]
        assert {one.retained for one in done} == {1.0}
        assert sum(one.bill.cost for one in done) <= sum(one.bill.cost for one in full)
        peaks.append(sum(one.bill.own for one in done))
    assert 1 / 1.15 < peaks[1] / peaks[0] < 1.15


def test_what_is_forgotten_is_not_answered() -> None:
    """By an updater that loses what it writes, nor through a window that the facts have left."""
    made = task(8)
    assert by_mem1(made, forgets=0.7).retained < 1.0
    window = shown(made, managers.Window(turns=3))
    assert window.retained < 0.5
    assert window.exact < 4


def test_broken_updates_cost_no_memory() -> None:
    """What was said is kept raw, or extracted without the model."""
    done = by_mem1(task(6), breaks=0.5)
    assert done.retained >= 0.6
    assert done.bill.calls >= 12


def test_orders_in_results_are_obeyed_where_they_stand_bare() -> None:
    """And not where results are data."""
    made = task(3, poison=world.INJECTION)
    assert shown(made, managers.Full()).hacked
    done = by_mem1(made)
    assert not done.hacked
    assert done.exact == 3.0


def test_the_world_comes_out_the_same_again() -> None:
    """From its seed, and every question can be answered from what its searches find."""
    one, other = world.generated(3, people=30), world.generated(3, people=30)
    assert one[0] == other[0]
    assert len(one[0]) > 20
    assert world.generated(4, people=30)[0] != one[0]
    single, library = world.generated(3, people=30, hops=1)
    assert all(item.answer in library.search(item.queries[0]) for item in single)


@pytest.mark.parametrize(
    ("given", "gold", "exact", "f1"),
    [
        ("The Paris!", "paris", 1.0, 1.0),
        ("Paris Paris", "Paris", 0.0, 2 / 3),
        ("", "Paris", 0.0, 0.0),
        ("", "", 1.0, 1.0),
    ],
)
def test_answers_are_scored_as_squad_does(given: str, gold: str, exact: float, f1: float) -> None:
    """By bags of words."""
    assert (world.exact(given, gold), world.f1(given, gold)) == (exact, pytest.approx(f1))


def test_hotpot_rows_become_tasks(data: object) -> None:
    """Those whose supporting facts the search finds."""
    objectives, library = world.hotpot(data)  # type: ignore[arg-type]
    made = partial(world.tasks, objectives, library, 4)(2, 1)
    assert len(objectives) > 100
    assert [by_mem1(one, Knobs(b_state=400)).exact for one in made] == [4.0, 4.0]
