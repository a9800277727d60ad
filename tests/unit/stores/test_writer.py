"""Group commit: many pieces of work, one transaction, each with its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from ctxmem.errors import Conflict, InvalidInput, StoreError
from ctxmem.stores import writer
from ctxmem.stores.engine import open_engine
from ctxmem.stores.writer import GroupCommit


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A file with one table of numbers."""
    opened = open_engine(f"sqlite:///{tmp_path}/numbers.db")
    with opened.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    yield opened
    opened.dispose()


@pytest.fixture
def commits(engine: Engine) -> Iterator[GroupCommit]:
    made = GroupCommit(engine)
    yield made
    made.close()


class Gate:
    """Work that keeps the writer busy until it is let go."""

    def __init__(self, commits: GroupCommit) -> None:
        self._leave = threading.Event()
        self._inside = threading.Event()
        self.future = commits.submit(self._wait)
        assert self._inside.wait(10)

    def _wait(self, connection: Connection) -> None:
        self._inside.set()
        assert self._leave.wait(10)

    def open(self) -> None:
        self._leave.set()
        self.future.result(10)


def put(n: int) -> Callable[[Connection], int]:
    """Work that inserts a number and gives it back."""

    def work(connection: Connection) -> int:
        connection.exec_driver_sql(f"INSERT INTO numbers VALUES ({n})")
        return n

    return work


def numbers(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT n FROM numbers ORDER BY n").scalars())


def test_work_gives_its_result_once_it_is_committed(commits: GroupCommit, engine: Engine) -> None:
    """Whoever has the result can read the row."""
    assert commits.submit(put(1)).result() == 1
    assert numbers(engine) == [1]


def test_what_queues_up_shares_a_commit(commits: GroupCommit, engine: Engine) -> None:
    """While one commit is under way, the next group gathers."""
    gate, committed = Gate(commits), []

    @event.listens_for(engine, "before_cursor_execute")
    def count(conn: object, cursor: object, statement: str, *rest: object) -> None:
        if statement == "COMMIT":
            committed.append(statement)

    futures = [commits.submit(put(n)) for n in range(writer.GROUP)]
    gate.open()
    assert [future.result(10) for future in futures] == list(range(writer.GROUP))
    assert len(committed) == 2


def test_one_that_conflicts_leaves_its_neighbours_alone(commits: GroupCommit, engine: Engine) -> None:
    """Before it and after it."""
    gate = Gate(commits)
    futures = [commits.submit(put(n)) for n in (1, 2, 2, 3)]
    gate.open()
    assert [type(future.exception(10)) for future in futures] == [type(None), type(None), Conflict, type(None)]
    assert numbers(engine) == [1, 2, 3]


def test_half_of_a_failed_piece_is_undone(commits: GroupCommit, engine: Engine) -> None:
    """All or nothing."""

    def half(connection: Connection) -> None:
        put(7)(connection)
        raise InvalidInput("no")

    gate = Gate(commits)
    futures: list[Future[object]] = [commits.submit(half), commits.submit(put(8))]
    gate.open()
    assert isinstance(futures[0].exception(10), InvalidInput)
    assert futures[1].result(10) == 8
    assert numbers(engine) == [8]


def test_a_database_that_fails_fails_the_group_and_not_the_next(commits: GroupCommit, engine: Engine) -> None:
    """Nothing of the group is there, and its callers know."""

    def fail(connection: Connection) -> None:
        raise StoreError("the disk is gone")

    gate = Gate(commits)
    futures: list[Future[object]] = [commits.submit(put(1)), commits.submit(fail), commits.submit(put(2))]
    gate.open()
    assert [type(future.exception(10)) for future in futures] == [StoreError] * 3
    assert numbers(engine) == []
    assert commits.submit(put(3)).result(10) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_in_the_work_leaves_no_caller_waiting(commits: GroupCommit) -> None:
    """The thread ends aloud, its callers are told, and the next write starts another."""

    def mistake(connection: Connection) -> None:
        raise KeyError("a bug")

    gate = Gate(commits)
    futures: list[Future[object]] = [commits.submit(mistake), commits.submit(put(1))]
    gate.open()
    assert [type(future.exception(10)) for future in futures] == [StoreError] * 2
    commits._thread.join(10)
    assert commits.submit(put(2)).result(10) == 2


def test_the_queue_is_bounded(commits: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused at once, and the others are written."""
    monkeypatch.setattr(writer, "QUEUED", 3)
    gate = Gate(commits)
    futures = [commits.submit(put(n)) for n in range(3)]
    with pytest.raises(StoreError, match="3 writes are waiting"):
        commits.submit(put(9))
    gate.open()
    assert [future.result(10) for future in futures] == [0, 1, 2]


def test_closing_commits_what_waits_and_refuses_more(engine: Engine) -> None:
    """More than one group of it."""
    commits = GroupCommit(engine)
    futures = [commits.submit(put(n)) for n in range(3 * writer.GROUP)]
    commits.close()
    assert [future.result(0) for future in futures] == list(range(3 * writer.GROUP))
    with pytest.raises(StoreError, match="closed"):
        commits.submit(put(999))


def test_a_write_under_way_cannot_be_taken_back(commits: GroupCommit, engine: Engine) -> None:
    """A caller that gave up waiting does not stop the writer for the others."""
    gate = Gate(commits)
    given_up = commits.submit(put(1))
    assert not given_up.cancel()
    gate.open()
    assert given_up.result(10) == 1
    assert commits.submit(put(2)).result(10) == 2
