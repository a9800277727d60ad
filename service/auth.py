"""Which tenant a request belongs to. Keys are compared by their HMAC, so a look-up tells nothing about a near miss."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ctxmem.errors import ConfigError
from service.errors import Unauthorized
from service.settings import Settings

DEFAULT_TENANT = "default"
_PREFIX = "cm-"
_THIS_MACHINE = re.compile(rb"(?:https?://)?(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tells the tenant from the credential.

    Attributes:
        pepper: secret that the stored HMACs are made with.
        known: tenant by HMAC of its key.
        strict: whether an unknown or missing credential is refused; else a missing one is the default tenant, and an
            unknown one names a tenant of its own.
    """

    pepper: bytes
    known: Mapping[bytes, str]
    strict: bool

    def of(self, headers: Mapping[bytes, bytes]) -> str:
        """The tenant behind a request's credential.

        Raises:
            Unauthorized: one is needed and not known. A page of another site needs one even where others do not: a
                browser sends its requests to this machine too.
        """
        key = credential(headers)
        digest = _digest(self.pepper, key)
        tenant = self.known.get(digest)
        if tenant is not None:
            return tenant
        if self.strict or (not key and _is_foreign(headers)):
            raise Unauthorized("Incorrect API key provided." if key else "You didn't provide an API key.")
        return f"t_{digest.hex()[:32]}" if key else DEFAULT_TENANT


def credential(headers: Mapping[bytes, bytes]) -> bytes:
    """The bearer token or `x-api-key` of a request, empty without one."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def _is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser sent it for a page that is not of this machine, under its own name or another's."""
    named = (headers.get(b"host"), headers.get(b"origin"))
    return any(name is not None and not _THIS_MACHINE.fullmatch(name) for name in named)


def tenants(settings: Settings) -> Tenants:
    """Read the keys.

    Raises:
        ConfigError: the keys file is missing, empty or malformed.
    """
    if settings.keys_file is None:
        pepper = _secret(settings.data_dir / "pepper").encode()
        return Tenants(pepper, {_digest(pepper, first_key(settings.data_dir).encode()): DEFAULT_TENANT}, strict=False)
    pepper = secrets.token_bytes(32)
    keys = dict(_lines(settings.keys_file))
    if not keys:
        raise ConfigError(f"{settings.keys_file} holds no keys; write lines of `tenant:key`")
    return Tenants(pepper, {_digest(pepper, key.encode()): tenant for key, tenant in keys.items()}, strict=True)


def first_key(data_dir: Path) -> str:
    """The key of local mode; made at the first start."""
    return _secret(data_dir / "key")


def _digest(pepper: bytes, credential: bytes) -> bytes:
    return hmac.digest(pepper, credential, sha256)


def _lines(file: Path) -> list[tuple[str, str]]:
    """Key and tenant of each line."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except OSError as error:
        raise ConfigError(f"cannot read the keys file: {error}") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        tenant, colon, key = line.partition(":")
        if not (colon and tenant.strip() and key.strip()):
            raise ConfigError(f"{file}, line {number}: write `tenant:key`")
        pairs.append((key.strip(), tenant.strip()))
    return pairs


def _secret(file: Path) -> str:
    """The secret in a file that only its owner can read; made when it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(handle, "w") as out:
        made = _PREFIX + secrets.token_urlsafe(32)
        out.write(made)
    return made
