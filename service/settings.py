"""Settings of the service: the one place that reads the environment.

Order of precedence: arguments, environment (`CTXMEM_PORT=8788`), the TOML file (`CTXMEM_CONFIG`, else `./ctxmem.toml`),
defaults. Lists in the environment are JSON. Unknown keys, in the file or in the environment, fail at start.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from ctxmem.errors import ConfigError
from ctxmem.hosts import is_loopback
from ctxmem.retrieval.tiered import HOT_BYTES, KEPT

PREFIX = "CTXMEM_"
LOCAL = "local"
"""Name of the upstream that is the model worker."""

_NOT_SETTINGS = frozenset(PREFIX + name for name in ("CONFIG", "DATA", "BASE_URL", "API_KEY", "PEERS"))
_VALUE = re.compile(r"Invalid enum value .*?(?= - at|$)")
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*):[^/@\s]*@")

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(gt=0)]
Price = Annotated[float, Meta(ge=0)]


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One OpenAI-compatible server that requests may go to.

    Attributes:
        name: how `name/model` and the metrics call it.
        base_url: address up to and with `/v1`; credentials do not belong in it.
        key_env: environment variable that holds its key.
        key_file: file that holds its key.
        models: model ids it serves; `*` for any that no other upstream lists.
        cache: how it caches prompts: not at all, by itself, or at marked breakpoints.
        read_price: price of a cached prompt token, uncached ones cost 1.
        write_price: price of a prompt token written to the cache.
        cache_ttl_s: seconds that a cached prefix lives.
        window: context window in tokens; None to take the tokenizer's.
        tokenizer: name for the counter, when the model id does not tell it.
        connect_timeout_s: seconds to wait for a connection.
        first_byte_timeout_s: seconds from the request to the head of the answer.
        idle_timeout_s: seconds between two pieces of the answer.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    base_url: Annotated[str, Meta(pattern=r"^https?://[^/@\s?#]+(/[^@\s?#]*)?$")]
    key_env: str | None = None
    key_file: Path | None = None
    models: tuple[str, ...] = ("*",)
    cache: Literal["none", "implicit", "breakpoints"] = "implicit"
    read_price: Price = 0.1
    write_price: Price = 1.0
    cache_ttl_s: Seconds = 300.0
    window: Count | None = None
    tokenizer: str | None = None
    connect_timeout_s: Seconds = 5.0
    first_byte_timeout_s: Seconds = 600.0
    idle_timeout_s: Seconds = 120.0

    def key(self) -> str | None:
        """The upstream's key, or None when it needs none.

        Raises:
            ConfigError: the variable is not set, or the file cannot be read.
        """
        if self.key_env is not None:
            if not os.environ.get(self.key_env):
                raise ConfigError(f"upstream {self.name}: the environment variable {self.key_env} is not set")
            return os.environ[self.key_env].strip()
        if self.key_file is None:
            return None
        try:
            return self.key_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"upstream {self.name}: cannot read its key file: {error}") from error


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the service.

    Attributes:
        host: address to listen on; anything but loopback needs `keys_file`.
        port: TCP port to listen on; 0 for a free one.
        data_dir: folder of the database, the local key and the sockets.
        cache_dir: folder of converted models.
        database_url: SQLAlchemy URL; a SQLite file in `data_dir` by default.
        redis_url: Redis or Valkey URL; None for the embedded server of `ctxmem serve`.
        worker_socket: Unix socket of the model worker.
        keys_file: file of `tenant:key` lines; None for local mode.
        policy: policy of requests that name none.
        model: local language model and scorer: packaged name, hub id or path; empty for none.
        adapter: adapter of compressed memory for the model: hub id or path; empty for the one that ships.
        embedder: model that makes the vectors of documents: packaged name, hub id or path.
        vectors_in_memory: vectors of a namespace of documents up to which they are held in memory; of more, most are in
            `data_dir`.
        vectors_device: torch device, such as `cuda`, where clusters of those that lookahead brings in are held and
            scored; empty for none.
        vectors_device_bytes: bytes of vectors held there at most.
        state_model: model of an upstream that writes states after answers under the policy `mem1`; empty to have them
            extracted at the epoch, without a model.
        deadline_ms: milliseconds that shortening what has arrived may take; an epoch may take ten times that.
        max_body_bytes: largest request body in bytes, unpacked.
        body_timeout_s: seconds to receive a request body in.
        max_inflight: requests served at once; more get 503.
        upstreams: servers that requests may go to, besides `local`.
        log_level: least severe log level.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787
    data_dir: Path = Path("~/.local/share/ctxmem")
    cache_dir: Path = Path("~/.cache/ctxmem")
    database_url: str = ""
    redis_url: str | None = None
    worker_socket: Path = Path()
    keys_file: Path | None = None
    policy: str = "balanced"
    model: str = "smollm2"
    adapter: str = ""
    embedder: str = "minilm"
    vectors_in_memory: Count = KEPT
    vectors_device: str = ""
    vectors_device_bytes: Count = HOT_BYTES
    state_model: str = ""
    deadline_ms: Count = 150
    max_body_bytes: Count = 32 * 2**20
    body_timeout_s: Seconds = 30.0
    max_inflight: Count = 256
    upstreams: tuple[Upstream, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        for name in ("data_dir", "cache_dir"):
            force_setattr(self, name, getattr(self, name).expanduser())
        if not self.database_url:
            force_setattr(self, "database_url", f"sqlite:///{self.data_dir / 'ctxmem.db'}")
        if self.worker_socket == Path():
            force_setattr(self, "worker_socket", self.data_dir / "worker.sock")
        if self.keys_file is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} can be reached from outside: set keys_file, or listen on 127.0.0.1")
        names = [upstream.name for upstream in self.upstreams]
        if LOCAL in names or len(set(names)) != len(names):
            raise ValueError(f"upstream names must differ from each other and from {LOCAL!r}: {', '.join(names)}")

    def shown(self) -> dict[str, Any]:
        """The settings as JSON values, passwords in URLs replaced by `***`."""
        dumped: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        urls = {key: _redacted(dumped[key]) for key in ("database_url", "redis_url") if dumped[key]}
        return {**dumped, **urls}


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        overrides: values that stand above environment and file.

    Raises:
        ConfigError: a key is unknown or a value is wrong; says which.
    """
    known = {PREFIX + name.upper(): name for name in Settings.__struct_fields__}
    told = {key.upper(): value for key, value in os.environ.items() if key.upper().startswith(PREFIX)}
    unknown = sorted(told.keys() - known.keys() - _NOT_SETTINGS)
    if unknown:
        raise ConfigError(f"unknown settings in the environment: {', '.join(unknown)}")
    named = {known[key]: value for key, value in told.items() if key in known}
    try:
        if "upstreams" in named:
            named["upstreams"] = msgspec.json.decode(named["upstreams"])
        return convert(Settings, {**_file(), **named, **(overrides or {})})
    except msgspec.DecodeError as error:
        raise ConfigError(f"upstreams: {error}") from error


Shape = TypeVar("Shape", Settings, Upstream)


def convert(shape: type[Shape], values: Mapping[str, Any]) -> Shape:
    """Settings out of plain values, numbers as text among them.

    Raises:
        ConfigError: a key is unknown or a value is wrong; says which, never the value, which may be secret.
    """
    try:
        return msgspec.convert(dict(values), shape, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        told = _VALUE.sub("invalid value", str(error)).replace("`$.", "`")
        raise ConfigError(told) from error


def _path(kind: type, value: Any) -> Path:
    """A path out of text, the home folder's sign resolved."""
    if kind is not Path or not isinstance(value, str | Path):
        raise ValueError("expected a path")
    return Path(value).expanduser()


def _file() -> dict[str, Any]:
    """What the TOML file says; nothing when none is named and there is none here."""
    named = os.environ.get("CTXMEM_CONFIG")
    file = Path(named or "ctxmem.toml").expanduser()
    if not file.is_file():
        if named:
            raise ConfigError(f"CTXMEM_CONFIG names a file that does not exist: {named}")
        return {}
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a child process: this one's, and these settings by name."""
    return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in values.items()}}


def told(name: Literal["database_url", "redis_url"]) -> str | None:
    """A setting that the parent process told in the environment; None without it."""
    return os.environ.get(PREFIX + name.upper()) or None


def _redacted(url: str) -> str:
    return _PASSWORD.sub(r"\1:***@", url)
