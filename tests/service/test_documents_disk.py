"""A namespace that is too large for memory, over HTTP: searched, erased from the disk, and made anew."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxmem.stores.sql import SqlStore
from service.settings import Settings
from tests.service.conftest import Gateway
from tests.service.worker_process import IN_MEMORY, Work, beside_worker

ROWS = "rows.f32"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Work]]:
    """A gateway and its worker."""
    with beside_worker(Settings(data_dir=tmp_path_factory.mktemp("disk"), port=0, vectors_device="cpu")) as running:
        yield running


@pytest.fixture
def ctx(both: tuple[Gateway, Work]) -> Gateway:
    """A tenant of the test's own, with more documents than are held in memory; each user has one of them."""
    made = Gateway(both[0].port, both[0].app)
    rows = [{"id": f"d{n}", "text": said(made, n), "user_id": f"u{n}"} for n in range(IN_MEMORY + 9)]
    assert made.post("/v1/documents", {"documents": rows}).status == 200
    assert found(made, 7) == "d7"
    return made


def said(ctx: Gateway, number: int) -> str:
    """What a document says; another tenant's says something else."""
    return f"Tram {number} of {ctx.key} stops at gate {number % 7}."


def found(ctx: Gateway, number: int) -> str:
    answer = ctx.post("/v1/documents/search", {"query": said(ctx, number), "top_k": 1, "mode": "dense"})
    assert answer.status == 200, answer.body
    assert answer.json["degraded"] == []
    return str(answer.json["results"][0]["document_id"])


def vectors(work: Work, ctx: Gateway) -> dict[str, bytes]:
    """By document, the tenant's vectors in the database."""
    store = SqlStore(f"sqlite:///{work.folder}/ctxmem.db", create=False)
    try:
        with store._reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT document_id, vector FROM chunks WHERE text LIKE ?", (f"%{ctx.key}%",)
            )
            return {document: bytes(vector) for document, vector in rows}
    finally:
        store.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob(ROWS))


def within(seconds: float, condition: Any) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


def test_an_erased_user_leaves_the_disk(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """Without a search that asks for it, and so does a document that is deleted."""
    folder, known = both[1].folder / "vectors", vectors(both[1], ctx)
    assert all(vector in on_disk(folder) for vector in known.values())
    assert ctx.ask("DELETE", "/v1/entities/user/u7").json["counts"]["documents"] == 1
    assert within(30, lambda: known["d7"] not in on_disk(folder))
    assert ctx.ask("DELETE", "/v1/documents/d8").json["deleted"]
    assert within(30, lambda: known["d8"] not in on_disk(folder))
    assert known["d9"] in on_disk(folder)
    assert found(ctx, 9) == "d9"


def test_a_disk_that_is_lost_is_made_anew(both: tuple[Gateway, Work], ctx: Gateway) -> None:
    """While the worker is down."""
    work = both[1]
    work.kill()
    shutil.rmtree(work.folder / "vectors")
    work.start()
    assert found(ctx, 12) == "d12"
    assert vectors(work, ctx)["d12"] in on_disk(work.folder / "vectors")
