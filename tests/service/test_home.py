"""The data folder: private, locked, and the place where the service says how to reach it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ctxmem.errors import ConfigError
from service import home


def test_the_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Nobody else on the machine reads the database or the key."""
    folder = home.open_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken/data"):
        home.open_folder(tmp_path / "taken" / "data")


def test_a_second_service_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """The message names the process; when it ends, the folder is free."""
    with home.locked(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()}"), home.locked(tmp_path):
        pass
    with home.locked(tmp_path):
        assert (tmp_path / home.LOCK_FILE).read_text() == str(os.getpid())


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    """A crash leaves the file but not the lock."""
    program = f"""
import os, signal
from pathlib import Path
from service import home
with home.locked(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode < 0
    with home.locked(tmp_path):
        pass


def test_the_address_is_there_while_the_service_is(tmp_path: Path) -> None:
    """Private, whole, and gone afterwards; taking it back twice is no error."""
    home.announce(tmp_path, "http://127.0.0.1:8787/v1")
    file = tmp_path / home.ADDRESS_FILE
    assert json.loads(file.read_text())["base_url"] == "http://127.0.0.1:8787/v1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home.withdraw(tmp_path)
    home.withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []
