"""Settings of the service: the one place that reads the environment.

Order of precedence: arguments, environment (`CTXMEM_PORT=8788`), the TOML file (`CTXMEM_CONFIG`, else `./ctxmem.toml`),
defaults. Lists in the environment are JSON. Unknown keys, in the file or in the environment, fail at start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ctxmem.errors import ConfigError

PREFIX = "CTXMEM_"
LOCAL = "local"
"""Name of the upstream that is the model worker."""

_NOT_SETTINGS = frozenset(PREFIX + name for name in ("CONFIG", "DATA", "BASE_URL", "API_KEY", "PEERS"))
_PASSWORD = re.compile(r"(?<=://)([^/@\s]*):[^/@\s]*@")

Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Seconds = Annotated[float, Field(gt=0)]


class Upstream(BaseModel):
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

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    base_url: Annotated[str, Field(pattern=r"^https?://[^/@\s?#]+(/[^@\s?#]*)?$")]
    key_env: str | None = None
    key_file: Folder | None = None
    models: tuple[str, ...] = ("*",)
    cache: Literal["none", "implicit", "breakpoints"] = "implicit"
    read_price: Annotated[float, Field(ge=0)] = 0.1
    write_price: Annotated[float, Field(ge=0)] = 1.0
    cache_ttl_s: Seconds = 300.0
    window: Annotated[int, Field(gt=0)] | None = None
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


class Settings(BaseSettings):
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
        deadline_ms: milliseconds that shortening what has arrived may take; an epoch may take ten times that.
        max_body_bytes: largest request body in bytes, unpacked.
        body_timeout_s: seconds to receive a request body in.
        max_inflight: requests served at once; more get 503.
        upstreams: servers that requests may go to, besides `local`.
        log_level: least severe log level.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    data_dir: Folder = Path("~/.local/share/ctxmem")
    cache_dir: Folder = Path("~/.cache/ctxmem")
    database_url: str = Field(default_factory=lambda data: f"sqlite:///{data['data_dir'] / 'ctxmem.db'}")
    redis_url: str | None = None
    worker_socket: Folder = Field(default_factory=lambda data: data["data_dir"] / "worker.sock")
    keys_file: Folder | None = None
    policy: str = "balanced"
    model: str = "smollm2"
    deadline_ms: Annotated[int, Field(gt=0)] = 150
    max_body_bytes: Annotated[int, Field(gt=0)] = 32 * 2**20
    body_timeout_s: Seconds = 30.0
    max_inflight: Annotated[int, Field(gt=0)] = 256
    upstreams: tuple[Upstream, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the TOML file."""
        file = Path(os.environ.get("CTXMEM_CONFIG") or "ctxmem.toml").expanduser()
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @model_validator(mode="after")
    def _coherent(self) -> Settings:
        if self.keys_file is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} can be reached from outside: set keys_file, or listen on 127.0.0.1")
        names = [upstream.name for upstream in self.upstreams]
        if LOCAL in names or len(set(names)) != len(names):
            raise ValueError(f"upstream names must differ from each other and from {LOCAL!r}: {', '.join(names)}")
        return self

    def shown(self) -> dict[str, Any]:
        """The settings as JSON values, passwords in URLs replaced by `***`."""
        dumped = self.model_dump(mode="json")
        urls = {key: _redacted(dumped[key]) for key in ("database_url", "redis_url") if dumped[key]}
        return {**dumped, **urls}


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    Args:
        overrides: values that stand above environment and file.

    Raises:
        ConfigError: a key is unknown or a value is wrong; says which.
    """
    file = os.environ.get("CTXMEM_CONFIG")
    if file and not Path(file).expanduser().is_file():
        raise ConfigError(f"CTXMEM_CONFIG names a file that does not exist: {file}")
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _NOT_SETTINGS
    unknown = sorted(key for key in os.environ if key.upper().startswith(PREFIX) and key.upper() not in known)
    if unknown:
        raise ConfigError(f"unknown settings in the environment: {', '.join(unknown)}")
    try:
        return Settings(**dict(overrides or {}))
    except ValidationError as error:
        raise ConfigError("; ".join(_explained(error))) from error
    except ValueError as error:  # the environment's JSON or the file's TOML
        raise ConfigError(str(error)) from error


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a child process: this one's, and these settings by name."""
    return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in values.items()}}


def is_loopback(host: str) -> bool:
    """Whether the address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explained(error: ValidationError) -> list[str]:
    """One line a mistake, without the values: they may be secret."""
    mistakes = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg'].removeprefix('Value error, ')}".lstrip(": ")
        for mistake in mistakes
        if mistake["type"] != "default_factory_not_called"
    ]


def _redacted(url: str) -> str:
    return _PASSWORD.sub(r"\1:***@", url)
