"""The embedded server: private, without a port or a file, gone with its owner."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from ctxmem.errors import ConfigError, Unavailable
from ctxmem.stores.valkey import EmbeddedValkey
from tests.shape.imports import ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    """A path that does not exist yet, short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="ctxmem-"))
    yield made / "cache"
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedValkey]:
    made = EmbeddedValkey(folder)
    yield made
    made.kill()


def test_it_starts_and_stops(server: EmbeddedValkey) -> None:
    """And says whether it runs."""
    assert (server.pid, server.running()) == (None, False)
    server.start()
    assert server.running()
    with Redis.from_url(server.url) as client:
        assert client.ping()
    server.stop()
    assert not server.running()


def test_it_is_private(server: EmbeddedValkey, folder: Path) -> None:
    """A folder and a socket for the owner alone, and no TCP port."""
    server.start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "valkey.sock").stat().st_mode) == 0o700
    assert psutil.Process(server.pid).net_connections("inet") == []


def test_it_is_bounded_and_leaves_no_file(server: EmbeddedValkey, folder: Path) -> None:
    """64 MiB at most, oldest out first; nothing on the disk after it stopped."""
    server.start()
    with Redis.from_url(server.url) as client:
        settings = client.config_get("maxmemory*")
        client.set("k", "v")
    assert settings["maxmemory"] == str(64 * 2**20)
    assert settings["maxmemory-policy"] == "allkeys-lru"
    server.stop()
    assert list(folder.iterdir()) == []


def test_it_starts_again_after_it_was_killed(server: EmbeddedValkey) -> None:
    """The socket that the dead one left is no obstacle."""
    server.start()
    first = server.pid
    os.kill(first, signal.SIGKILL)
    while server.running():
        time.sleep(0.01)
    server.start()
    assert server.running()
    assert server.pid != first


def test_starting_and_stopping_twice_is_the_same_as_once(server: EmbeddedValkey) -> None:
    """Neither is an error."""
    server.start()
    first = server.pid
    server.start()
    assert server.pid == first
    server.stop()
    server.stop()


def test_a_folder_has_one_server(server: EmbeddedValkey, folder: Path) -> None:
    """The second is told, and the first goes on."""
    server.start()
    with pytest.raises(Unavailable, match="another server"):
        EmbeddedValkey(folder).start()
    assert server.running()


def test_it_dies_with_its_owner(folder: Path) -> None:
    """However the owner dies."""
    script = (
        "import sys, time\n"
        "from ctxmem.stores.valkey import EmbeddedValkey\n"
        "server = EmbeddedValkey(sys.argv[1]); server.start(); print(server.pid, flush=True); time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_folder_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    """Sockets have short names; better to hear it at the start."""
    with pytest.raises(ConfigError, match="too long"):
        EmbeddedValkey(tmp_path / ("x" * 110))
