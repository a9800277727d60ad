"""Which adapter makes the worker's compressed memories: the one that ships, one's own, none that fits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ctxmem.errors import Unavailable
from ctxmem.lm.causal import CausalLM
from ctxmem.lm.ccm.adapter import Adapter
from ctxmem.lm.ccm.files import save_adapter
from ctxmem.lm.ccm.rows import ChatML
from ctxmem.ports import SlotName
from ctxmem.stores.memory import MemoryCache
from ctxmem.stores.sql import SqlStore
from service.settings import Settings
from service.supervisor import Supervisor, main
from service.worker.memories import Memories
from service.worker.turns import Turns
from tests.unit.lm.conftest import byte_tokenizer, random_model

NAME = SlotName("t", "s", "ev_1")


class Once:
    """The compute thread's turns: does the first thing it is asked to, then is gone."""

    def __init__(self) -> None:
        self.found: Any = None

    async def call(self, work: Callable[[], Any]) -> Any:
        self.found = work()
        raise Unavailable("gone")


@pytest.fixture
def lm() -> CausalLM:
    return CausalLM(random_model(), byte_tokenizer("<|im_start|>"), label="random")


async def found(adapter: str, lm: CausalLM, folder: Path) -> Any:
    """What the worker opens for a first memory; None when it has no adapter."""
    store = SqlStore(f"sqlite:///{folder}/log.db")
    turns = Once()
    memories = Memories(lambda: store.slots, MemoryCache, adapter=adapter)
    assert await memories.find(NAME, lm, cast("Turns", turns)) is None
    store.close()
    return turns.found


async def test_an_adapter_of_ones_own_makes_the_memories(lm: CausalLM, tmp_path: Path) -> None:
    """The one the setting names, for a model that the shipped one does not fit."""
    own = Adapter(lm.model)
    save_adapter(own, lm.model, tmp_path, sink=ChatML(lm.tokenizer).start, note={})
    own.remove()
    sessions, memory = await found(str(tmp_path), lm, tmp_path)
    assert memory is None
    assert sessions.model.adapter.rank == own.rank


@pytest.mark.parametrize(
    ("adapter", "why"), [("", "another base"), ("/nowhere", "/nowhere"), ("nobody/nothing", "nobody/nothing")]
)
async def test_without_one_that_fits_the_text_has_to_do(
    adapter: str, why: str, lm: CausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The shipped one for another model, a folder that is not there, a repository that cannot be had."""
    with caplog.at_level(logging.WARNING):
        assert await found(adapter, lm, tmp_path) is None
    assert why in caplog.text


def test_the_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the service that starts it."""
    started: list[Any] = []
    monkeypatch.setattr(Supervisor, "run", lambda self: started.extend(self.children) or 0)
    main(Settings(data_dir=tmp_path, cache_dir=tmp_path, port=0, adapter="me/mine"))
    argv = next(child.argv for child in started if child.name == "model worker")
    assert argv[argv.index("--adapter") + 1] == "me/mine"
