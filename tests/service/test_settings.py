"""Settings come from one place, and a wrong one stops the start with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxmem.errors import ConfigError
from ctxmem.hosts import is_loopback
from service.settings import Settings, Upstream, convert, load

UP = '{"name": "up", "base_url": "http://127.0.0.1:1/v1"}'


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.__struct_fields__:
        monkeypatch.delenv("CTXMEM_" + name.upper(), raising=False)


def test_defaults_stand_on_loopback_and_in_the_data_folder() -> None:
    """Nothing needs to be set."""
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8787)
    assert settings.database_url == f"sqlite:///{settings.data_dir}/ctxmem.db"
    assert settings.worker_socket == settings.data_dir / "worker.sock"


def test_arguments_stand_above_environment_above_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The nearest wins."""
    (tmp_path / "ctxmem.toml").write_text('port = 1\npolicy = "none"\nmodel = "a"\n')
    monkeypatch.setenv("CTXMEM_PORT", "2")
    monkeypatch.setenv("CTXMEM_POLICY", "balanced")
    settings = load({"port": 3})
    assert (settings.port, settings.policy, settings.model) == (3, "balanced", "a")


def test_the_file_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And must then be there."""
    file = tmp_path / "other.toml"
    monkeypatch.setenv("CTXMEM_CONFIG", str(file))
    with pytest.raises(ConfigError, match="does not exist"):
        load()
    file.write_text('[[upstreams]]\nname = "up"\nbase_url = "https://api.example/v1"\nmodels = ["a", "b"]\n')
    assert load().upstreams[0].models == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("CTXMEM_PROT", "1", "CTXMEM_PROT"),
        ("CTXMEM_PORT", "x", "port"),
        ("CTXMEM_PORT", "70000", "port"),
        ("CTXMEM_HOST", "0.0.0.0", "keys_file"),
        ("CTXMEM_HOST", "example.org", "keys_file"),
        ("CTXMEM_LOG_LEVEL", "loud", "log_level"),
        ("CTXMEM_MAX_INFLIGHT", "0", "max_inflight"),
        ("CTXMEM_UPSTREAMS", "[{", "upstreams"),
        ("CTXMEM_UPSTREAMS", '[{"name": "up"}]', "base_url"),
        ("CTXMEM_UPSTREAMS", f"[{UP}, {UP}]", "differ"),
        ("CTXMEM_UPSTREAMS", f"[{UP}]".replace('"up"', '"local"'), "local"),
        ("CTXMEM_UPSTREAMS", f"[{UP}]".replace('"up"', '"a/b"'), "name"),
        ("CTXMEM_UPSTREAMS", f"[{UP}]".replace("http:", "ftp:"), "base_url"),
        ("CTXMEM_UPSTREAMS", f"[{UP}]".replace("//", "//user:pw@"), "base_url"),
        ("CTXMEM_UPSTREAMS", f"[{UP}]".replace("}", ', "speed": 1}'), "speed"),
    ],
)
def test_a_wrong_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    """The message names it, and never shows the value: it may be secret."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        load()
    assert told in str(raised.value)
    assert "user:pw" not in str(raised.value)


@pytest.mark.parametrize("text", ["prot = 1\n", "port = \n"])
def test_a_wrong_file_stops_the_start(tmp_path: Path, text: str) -> None:
    """An unknown key, or no TOML."""
    (tmp_path / "ctxmem.toml").write_text(text)
    with pytest.raises(ConfigError):
        load()


def test_an_open_host_needs_keys(tmp_path: Path) -> None:
    """With them it may listen anywhere."""
    assert load({"host": "0.0.0.0", "keys_file": tmp_path / "keys"}).host == "0.0.0.0"


@pytest.mark.parametrize(("host", "here"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("::", False)])
def test_loopback_is_known_in_every_spelling(host: str, here: bool) -> None:
    """Addresses of both families, and the one name."""
    assert is_loopback(host) is here


class TestKeyOfAnUpstream:
    """`Upstream.key`."""

    def test_comes_from_environment_or_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Blanks around it do not count."""
        (tmp_path / "key").write_text("from file\n")
        monkeypatch.setenv("UP_KEY", " from env ")
        assert _upstream(key_env="UP_KEY").key() == "from env"
        assert _upstream(key_file=tmp_path / "key").key() == "from file"
        assert _upstream().key() is None

    @pytest.mark.parametrize("where", [{"key_env": "UP_KEY_THAT_IS_NOT_SET"}, {"key_file": "/nowhere/key"}])
    def test_a_missing_one_stops_the_start(self, where: dict[str, Any]) -> None:
        """Rather than asking without."""
        with pytest.raises(ConfigError, match="up"):
            _upstream(**where).key()


def test_what_is_shown_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in URLs are replaced; keys are named, not read."""
    monkeypatch.setenv("UP_KEY", "sk-secret")
    shown = load(
        {
            "database_url": "postgresql://user:hush@db/x",
            "redis_url": "redis://:hush@cache/0",
            "upstreams": [{"name": "up", "base_url": "http://x/v1", "key_env": "UP_KEY"}],
        }
    ).shown()
    assert "hush" not in str(shown)
    assert "sk-secret" not in str(shown)
    assert shown["database_url"] == "postgresql://user:***@db/x"


def _upstream(**more: Any) -> Upstream:
    return convert(Upstream, {"name": "up", "base_url": "http://x/v1", **more})
