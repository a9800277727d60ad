"""What every test gets: no network but this machine, no model hub, and the way to the real inputs."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("ctxmem", deadline=None)  # the machine may be busy: laws are tested, speed is not
settings.load_profile("ctxmem")

_refused: list[str] = []


class OutsideRefused(OSError):
    """A test reached for the network beyond this machine."""


def _refuse_outside(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook: only loopback addresses and Unix sockets may be reached."""
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None
    else:
        return
    if isinstance(host, str) and host.endswith(".invalid"):  # never resolves (RFC 6761): for tests of a dead upstream
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if not _is_here(host):
        _refused.append(f"{event} {host!r}")
        raise OutsideRefused(f"tests may not reach {host!r}: only loopback and Unix sockets are open")


def _is_here(host: Any) -> bool:
    """Whether the host is this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


sys.addaudithook(_refuse_outside)


@pytest.fixture
def refused() -> list[str]:
    """The addresses beyond this machine that were reached for; a test that means to do so clears it."""
    return _refused


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What async tests run on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def offline(refused: list[str]) -> Iterator[None]:
    """Fail a test that reached outside, even where the code under test swallowed the refusal."""
    yield
    reached = refused[:]
    refused.clear()
    assert not reached, f"reached for the network: {', '.join(reached)}"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real inputs: `CTXMEM_DATA`, or `shared/data` beside the checkout; skips aloud without one."""
    folder = Path(os.environ.get("CTXMEM_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real inputs: {folder} is not a folder; set CTXMEM_DATA")
    return folder
