"""A scripted server, a manager that keeps nothing, and a bare client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from ctxmem import ContextManager
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
def manager() -> Iterator[ContextManager]:
    with_nothing = ContextManager("sqlite://")
    yield with_nothing
    with_nothing.close()


@pytest.fixture
def chat(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with gpt(upstream.url, "k") as client:
        yield client
