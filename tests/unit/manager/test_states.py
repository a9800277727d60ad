"""States of a session: what requests were sent, what is worked out after answers, and that late results wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctxmem.compressors.lexical import Lexical
from ctxmem.compressors.mem1.consolidate import TITLE
from ctxmem.errors import NotFound
from ctxmem.job import Claim
from ctxmem.manager import ContextManager
from ctxmem.manager.consolidation import KIND, Consolidation, wanted
from ctxmem.manager.engine import Engine
from ctxmem.manager.states import States, told
from ctxmem.ports import Complete
from ctxmem.runner import Runner
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from ctxmem.testing import WordCounter
from ctxmem.types import Message
from tests.databases import database
from tests.unit.manager.conftest import word_counter
from tests.unit.manager.test_arrive import user
from tests.unit.manager.test_build import converse


class Writer:
    """A model that adds one fact, in the form it is asked for, or whatever it was told to say."""

    def __init__(self, says: str = '{"ops": [{"op": "add", "sec": "facts", "text": "Noted by the model."}]}') -> None:
        self.says = says
        self.asked: list[Sequence[Message]] = []
        self.before = threading.Event()
        self.before.set()

    def complete(self, messages: Sequence[Message], *, max_tokens: int) -> Iterator[str]:
        self.asked.append(messages)
        self.before.wait(10)
        if self.says == "raise":
            raise RuntimeError("the model is down")
        yield self.says


def opened(path: Path) -> ContextManager:
    """A manager whose answers queue work."""
    engine = Engine(SqlStore(database(path)), MemoryCache(), word_counter, Lexical(), after_answer=wanted)
    return ContextManager(engine, policy="mem1")


@pytest.fixture
def cm(tmp_path: Path) -> Iterator[ContextManager]:
    manager = opened(tmp_path / "log.db")
    yield manager
    manager.close()


def worker(cm: ContextManager, complete: Complete | None = None) -> Runner:
    return Runner(cm.engine.store.jobs, {KIND: Consolidation(cm, complete, timeout_s=5)})


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it came true within ten seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def states_sent(plan: object) -> list[str]:
    return [m.text for m in plan.render() if m.kind == "state"]  # type: ignore[attr-defined] - a plan


class TestAhead:
    def test_an_answer_queues_one_job_a_session(self, cm: ContextManager) -> None:
        """Once its context is large enough; with the answer or not at all."""
        list(converse(cm, 2, budget=1000))
        assert cm.engine.store.jobs.jobs("default") == []
        list(converse(cm, 12, budget=1000, start=2))
        (queued,) = cm.engine.store.jobs.jobs("default")
        assert (queued.kind, queued.session_id) == (KIND, "s")

    @pytest.mark.parametrize("model", [True, False])
    def test_what_is_worked_out_waits_for_the_epoch(self, cm: ContextManager, model: bool) -> None:
        """No request changes before; then the state in it goes on from it, within its bound."""
        writer = Writer() if model else None
        said, at = [], None
        for turn, plan in enumerate(converse(cm, 40, budget=1000)):
            assert plan.receipt.tokens <= 1000
            if plan.receipt.action != "epoch":
                assert not states_sent(plan) or at is not None
            else:
                at = turn if at is None else at
            said.append(plan)
            worker(cm, writer).drain()
        epoch = next(plan for plan in said if plan.receipt.action == "epoch")
        waited = [v for v in States(cm, "s").versions() if v.waiting]
        assert waited and all(v.state.tokens <= v.state.bound for v in waited)
        assert ("Noted by the model." in states_sent(epoch)[0]) == model
        assert states_sent(epoch)[0].startswith(TITLE)
        assert [item.decision for item in epoch.receipt.items].count("dropped") == 0

    def test_an_epoch_before_the_job_does_its_own_work(self, cm: ContextManager) -> None:
        """And the job that comes late starts from it."""
        plans = list(converse(cm, 20, budget=1000))
        assert any(plan.receipt.action == "epoch" for plan in plans)
        worker(cm).drain()
        newest = States(cm, "s").at()
        assert newest.waiting
        shown = [v for v in States(cm, "s").versions() if not v.waiting][-1]
        assert {i.text for i in shown.state.items} & {i.text for i in newest.state.items}

    def test_what_is_said_meanwhile_is_not_lost(self, cm: ContextManager) -> None:
        """A turn that arrives while the model writes: the job's state is logged after it, and covers what it read."""
        list(converse(cm, 10, budget=1000))
        writer = Writer()
        writer.before.clear()
        thread = threading.Thread(target=worker(cm, writer).drain)
        thread.start()
        assert wait_for(lambda: bool(writer.asked))
        list(converse(cm, 11, budget=1000, start=10))
        writer.before.set()
        thread.join()
        *_, meanwhile, _, last = [event for event in cm.session("s").events() if event.kind in (None, "state")]
        known = told(last)
        assert known is not None
        assert meanwhile.id not in known.covers
        assert cm.session("s").head.branches == 1
        list(converse(cm, 24, budget=1000, start=11))
        assert cm.session("s").head.branches == 1

    def test_an_answer_after_the_job_is_no_branch(self, cm: ContextManager) -> None:
        """What ctxmem logs between request and answer is nothing that was said."""
        list(converse(cm, 10, budget=1000))
        cm.prepare("s", [user("And?")], 1000)
        worker(cm).drain()
        cm.record("s", "Yes.")
        assert cm.session("s").head.branches == 1
        assert cm.session("s").events()[-1].role == "assistant"

    @pytest.mark.parametrize("says", ["", "x" * 100_000, '{"ops": [', "raise", '{"ops": [{"op": "del", "id": "i1"}]}'])
    def test_whatever_the_model_writes_the_state_holds(self, cm: ContextManager, says: str) -> None:
        """Never empty, never over its bound, and no error reaches the session."""
        writer = Writer(says)
        for plan in converse(cm, 24, budget=1000):
            assert plan.receipt.tokens <= 1000
            worker(cm, writer).drain()
        assert writer.asked
        for version in States(cm, "s").versions():
            assert version.state.items
            assert version.state.tokens <= version.state.bound
            assert "RuntimeError" not in version.state.text()

    def test_two_at_once_are_one_after_the_other(self, cm: ContextManager) -> None:
        """Both are logged; the session goes on on one branch."""
        list(converse(cm, 10, budget=1000))
        (job,) = cm.engine.store.jobs.jobs("default")
        work = Consolidation(cm)
        threads = [threading.Thread(target=work, args=(Claim("default", job), lambda progress: None)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        versions = States(cm, "s").versions()
        assert 1 <= len(versions) <= 4
        assert len({version.state.text() for version in versions}) == 1
        list(converse(cm, 30, budget=1000, start=10))
        assert cm.session("s").head.branches == 1

    def test_a_job_of_an_erased_session_does_nothing(self, cm: ContextManager) -> None:
        list(converse(cm, 10, budget=1000))
        (job,) = cm.engine.store.jobs.jobs("default")
        cm.session("s").erase()
        assert cm.engine.store.jobs.jobs("default") == []
        Consolidation(cm)(Claim("default", job), lambda progress: None)
        assert cm.engine.store.session("default", "s") is None

    def test_a_restart_finds_what_waits(self, tmp_path: Path) -> None:
        """By another process, from the log alone."""
        first = opened(tmp_path / "log.db")
        list(converse(first, 10, budget=1000))
        worker(first, Writer()).drain()
        first.close()
        second = opened(tmp_path / "log.db")
        plans = list(converse(second, 30, budget=1000, start=10))
        epoch = next(plan for plan in plans if plan.receipt.action == "epoch")
        assert "Noted by the model." in states_sent(epoch)[0]
        assert second.replay(epoch.receipt.id).identical
        second.close()


class TestVersions:
    def test_every_state_is_there_by_number(self, cm: ContextManager) -> None:
        """The newest is the one in the context; its tokens and bound are those it was made under."""
        plans = list(converse(cm, 60, budget=1000))
        states = States(cm, "s")
        versions = states.versions()
        assert [version.state.version for version in versions] == list(range(1, len(versions) + 1))
        assert len(versions) > 1
        newest = states.at()
        assert newest == versions[-1]
        assert f"{TITLE}\n{newest.state.text()}" == states_sent(plans[-1])[0]
        assert 0 < newest.state.tokens == WordCounter().texts([newest.state.text()])[0] <= newest.state.bound
        assert states.at(0).state.items == ()
        for number in (-1, len(versions) + 1):
            with pytest.raises(NotFound):
                states.at(number)

    def test_items_have_sources(self, cm: ContextManager) -> None:
        """Events that say what they say."""
        list(converse(cm, 40, budget=1000))
        newest = States(cm, "s").at(sources=True)
        assert all(item.src for item in newest.state.items)
        item = next(item for item in newest.state.items if item.text.startswith("user: "))
        (event,) = cm.engine.store.events_by_id("default", item.src[:1])
        assert item.text.removeprefix("user: ").split()[0] in event.raw.decode()

    def test_no_session_no_state(self, cm: ContextManager) -> None:
        with pytest.raises(NotFound):
            States(cm, "nobody").at()
        cm.prepare("s", [user("Hi.")], 1000)
        assert States(cm, "s").at().state.version == 0
