"""A scripted server, a manager over an empty database, and a bare client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from ctxmem import ContextManager
from tests.databases import database
from tests.service.upstream import Upstream
from tests.service.wires import gpt


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.reset()
    return server


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ContextManager]:
    opened = ContextManager(database(tmp_path / "scratch.db"))
    yield opened
    opened.close()


@pytest.fixture
def chat(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with gpt(upstream.url, "k") as client:
        yield client
