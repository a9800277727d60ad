"""Folders: named values that a framework reads and writes as it likes, with a revision to compare and set on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        revision: changes with every write; 0 when there is no such folder.
        items: values by key, in the order of the keys' code points.
    """

    revision: int = 0
    items: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One write to a folder, all or nothing.

    Attributes:
        put: values by key.
        append: values that come after all that were appended before.
        delete: keys to take out, before anything is put.
        clear: take everything out first.
        expected: refuse when the folder is at another revision; 0 for one that is not there.
        user_id: whose the folder becomes when it is made.
    """

    put: Mapping[str, bytes] = field(default_factory=dict)
    append: Sequence[bytes] = ()
    delete: Sequence[str] = ()
    clear: bool = False
    expected: int | None = None
    user_id: str = ""


class Folders(Protocol):
    """Keeps folders; every method is scoped to one tenant."""

    def folder(
        self, tenant: str, name: str, *, last: int | None = None, key: str | None = None, prefix: str = ""
    ) -> Folder:
        """A folder: all of it, its last items, one item, or those under a prefix; never older than the revision."""
        ...

    def change(self, tenant: str, name: str, change: Change) -> Future[int]:
        """Write; the future gives the new revision once it is on the disk, or raises `Conflict`."""
        ...

    def names(self, tenant: str, *, prefix: str = "", user_id: str | None = None) -> list[str]:
        """The folders whose names begin so, in order."""
        ...
