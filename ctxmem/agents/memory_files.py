"""The files of Anthropic's memory tool as values: each command looks at what is there and says what is to change.

Words and layout of the answers are those of the SDK's own file-system tool, which models are used to. What differs:
a command that fails changes nothing, `..` is refused wherever it stands, and a folder's size is that of its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ctxmem.errors import InvalidInput
from ctxmem.ports import Change

ROOT = "/memories"
MOST_LINES = 999_999
_WIDTH = len(str(MOST_LINES))
_LEVELS = 2
"""Levels that a listing goes down."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did.

    Attributes:
        said: the answer.
        change: what is to be written; None when nothing is.
    """

    said: str
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Files and folders by key: a file's is its path below the root, a folder's ends with a slash.

    Attributes:
        items: contents in UTF-8; those of folders are empty.
    """

    items: Mapping[str, bytes] = field(default_factory=dict)

    def view(self, path: str, view_range: list[int] | None = None) -> Done:
        """A file with numbered lines, or what a folder holds."""
        key = _key(path)
        if key in self.items:
            return Done(f"Here's the content of {path} with line numbers:\n{self._lines(path, key, view_range)}")
        if not self._is_folder(key):
            raise _missing(path)
        listed = [f"{_size(self._weight(key))}\t{path}"]
        listed += [f"{_size(self._weight(name))}\t{path}/{shown}" for name, shown in self._below(key)]
        head = f"Here're the files and directories up to 2 levels deep in {path}, excluding hidden items:"
        return Done("\n".join([head, *listed]))

    def create(self, path: str, text: str) -> Done:
        """A new file, and the folders it is in."""
        key = _key(path)
        if key in self.items or self._is_folder(key):
            raise InvalidInput(f"File {path} already exists")
        put = {**self._folders(path, key), key: _encoded(text)}
        return Done(f"File created successfully at: {path}", Change(put=put))

    def str_replace(self, path: str, old: str, new: str) -> Done:
        """Replace a text that stands once in a file."""
        key, content = self._file(path)
        count = content.count(old)
        if count == 0:
            raise InvalidInput(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
        if count > 1:
            where = ", ".join(str(content[:at].count("\n") + 1) for at in _occurrences(content, old))
            raise InvalidInput(
                f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {where}. "
                "Please ensure it is unique"
            )
        line = content[: content.find(old)].count("\n")
        edited = content.replace(old, new)
        lines = edited.split("\n")
        first = max(0, line - 2)
        snippet = _numbered(lines[first : line + 3], first + 1)
        said = "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
        return Done(said + snippet, Change(put={key: _encoded(edited)}))

    def insert(self, path: str, line: int, text: str) -> Done:
        """Put lines after a line of a file; 0 puts them first."""
        key, content = self._file(path)
        lines = content.split("\n")
        if lines[-1] == "":
            lines.pop()
        if not 0 <= line <= len(lines):
            raise InvalidInput(
                f"Invalid `insert_line` parameter: {line}. It should be within the range [0, {len(lines)}]."
            )
        lines.insert(line, text.rstrip("\n"))
        edited = "\n".join(lines)
        edited = edited if edited.endswith("\n") else edited + "\n"
        return Done(f"The file {path} has been edited.", Change(put={key: _encoded(edited)}))

    def delete(self, path: str) -> Done:
        """Delete a file, or a folder with all that is in it."""
        key = _key(path)
        if not key:
            raise InvalidInput("Cannot delete the /memories directory itself")
        gone = list(self._all(key))
        if not gone:
            raise InvalidInput(f"The path {path} does not exist")
        return Done(f"Successfully deleted {path}", Change(delete=gone))

    def rename(self, old: str, new: str) -> Done:
        """Move a file, or a folder with all that is in it."""
        source, target = _key(old), _key(new)
        if not source:
            raise InvalidInput("Cannot rename the /memories directory itself")
        if target in self.items or self._is_folder(target):
            raise InvalidInput(f"The destination {new} already exists")
        gone = list(self._all(source))
        if not gone:
            raise InvalidInput(f"The path {old} does not exist")
        if target.startswith(f"{source}/"):
            raise InvalidInput(f"Cannot move {old} into itself")
        moved = {target + key[len(source) :]: self.items[key] for key in gone}
        put = {**self._folders(new, target), **moved}
        return Done(f"Successfully renamed {old} to {new}", Change(put=put, delete=gone))

    def _file(self, path: str) -> tuple[str, str]:
        """Key and text of a file."""
        key = _key(path)
        if self._is_folder(key):
            raise InvalidInput(f"The path {path} is not a file.")
        if key not in self.items:
            raise _missing(path)
        return key, self.items[key].decode()

    def _is_folder(self, key: str) -> bool:
        return not key or f"{key}/" in self.items

    def _folders(self, path: str, key: str) -> dict[str, bytes]:
        """The folders above a key that are not there yet."""
        parts = key.split("/")[:-1]
        above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if any(one in self.items for one in above):
            raise InvalidInput(f"The path {path} leads through a file.")
        return {f"{one}/": b"" for one in above if f"{one}/" not in self.items}

    def _all(self, key: str) -> Iterator[str]:
        """The keys of a file, or of a folder and all that is in it."""
        return (one for one in self.items if one == key or one.startswith(f"{key}/"))

    def _weight(self, key: str) -> int:
        """Bytes of a file, or of all files in a folder."""
        if key in self.items and not key.endswith("/"):
            return len(self.items[key])
        inside = key.rstrip("/") + "/" if key else ""
        return sum(len(content) for one, content in self.items.items() if one.startswith(inside))

    def _below(self, key: str, shown: str = "", level: int = 1) -> Iterator[tuple[str, str]]:
        """Keys in a folder and how they are listed, each folder before what is in it, hidden ones left out."""
        inside = f"{key}/" if key else ""
        names = {one[len(inside) :] for one in self.items if one.startswith(inside)} - {""}
        direct = sorted(name for name in names if "/" not in name.rstrip("/") and not name.startswith("."))
        for name in sorted(direct, key=lambda each: each.rstrip("/")):
            yield inside + name, shown + name
            if name.endswith("/") and level < _LEVELS:
                yield from self._below(inside + name.rstrip("/"), shown + name, level + 1)

    def _lines(self, path: str, key: str, view_range: list[int] | None) -> str:
        lines = self.items[key].decode().split("\n")
        if len(lines) > MOST_LINES:
            raise InvalidInput(f"File {path} exceeds maximum line limit of 999,999 lines.")
        if not view_range or len(view_range) != 2:
            return _numbered(lines, 1)
        first, last = max(1, view_range[0]), view_range[1]
        return _numbered(lines[first - 1 : len(lines) if last == -1 else last], first)


def _key(path: str) -> str:
    """A path below the root, without empty parts.

    Raises:
        InvalidInput: it is not below the root, or could be read as leading out of it.
    """
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        raise InvalidInput(f"Path must start with /memories, got: {path}")
    parts = [part for part in path[len(ROOT) :].split("/") if part not in ("", ".")]
    hidden = path.lower().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace("\\", "/")
    if ".." in hidden.split("/") or not path.isprintable():
        raise InvalidInput(f"Path {path} would escape /memories directory")
    return "/".join(parts)


def _missing(path: str) -> InvalidInput:
    return InvalidInput(f"The path {path} does not exist. Please provide a valid path.")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The text cannot be stored: {error}") from error


def _occurrences(content: str, old: str) -> Iterator[int]:
    at = content.find(old)
    while at != -1:
        yield at
        at = content.find(old, at + 1)


def _numbered(lines: list[str], first: int) -> str:
    return "\n".join(f"{str(first + i).rjust(_WIDTH)}\t{line}" for i, line in enumerate(lines))


def _size(count: int) -> str:
    """Bytes as the SDK writes them: `0B`, `12B`, `4K`, `1.5M`."""
    step = min(max(count.bit_length() - 1, 0) // 10, 3)
    amount = count / 1024**step
    return f"{int(amount)}{'BKMG'[step]}" if amount == int(amount) else f"{amount:.1f}{'BKMG'[step]}"
