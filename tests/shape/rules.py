"""The rules of shape that ruff does not have. Each takes one parsed file and yields what is wrong with it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_LINES = 300
FUNCTION_LINES = 40
PUBLIC_METHODS = 12
NAMELESS = frozenset({"util", "utils", "helper", "helpers", "common", "base", "factory", "misc"})

WIDE = {"Store": 18, "CtxMemRecordManager": 13}
"""Classes that may have more methods, and how many, never more. `Store`: the log is one port with one read per kind of
record; four narrower ports would always be passed together. `CtxMemRecordManager`: LangChain's interface has six calls,
each sync and async, and a database is closed."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file.

    Attributes:
        name: its path from the root of the repository.
        text: what it says.
        tree: the same, parsed.
    """

    name: str
    text: str
    tree: ast.Module


Rule = Callable[[Source], Iterator[str]]
"""Yields `path:line: what is wrong`."""


def read(root: Path, path: Path) -> Source:
    """Read and parse one file."""
    text = path.read_text()
    return Source(path.relative_to(root).as_posix(), text, ast.parse(text))


def short_file(source: Source) -> Iterator[str]:
    """A file has at most 300 lines."""
    lines = len(source.text.splitlines())
    if lines > FILE_LINES:
        yield f"{source.name}:{lines}: more than {FILE_LINES} lines"


def short_functions(source: Source) -> Iterator[str]:
    """A function has at most 40 lines, its docstring included."""
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{source.name}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}"


def narrow_classes(source: Source) -> Iterator[str]:
    """A class has at most 12 public methods, properties not counted."""
    for node in _classes(source):
        public = {m.name for m in node.body if isinstance(m, Function) and m.name[0] != "_" and not _is_property(m)}
        limit = max((WIDE[name] for name in _named(node) if name in WIDE), default=PUBLIC_METHODS)
        if len(public) > limit:
            yield f"{source.name}:{node.lineno}: {node.name} has {len(public)} public methods, more than {limit}"


def telling_names(source: Source) -> Iterator[str]:
    """A file is named after something in the domain."""
    words = Path(source.name).stem.split("_")
    if NAMELESS.intersection(words):
        yield f"{source.name}:1: the name says nothing about what is inside"


def no_mixins(source: Source) -> Iterator[str]:
    """No class is a mixin."""
    for node in _classes(source):
        if node.name.endswith("Mixin"):
            yield f"{source.name}:{node.lineno}: {node.name} is a mixin"


def absolute_imports(source: Source) -> Iterator[str]:
    """Every import names its module in full."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{source.name}:{node.lineno}: relative import"


def open_failures(source: Source) -> Iterator[str]:
    """Nothing swallows every error, but `ctxmem.transform.run`, the one place that fails open."""
    if source.name == "ctxmem/transform.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_blind(node) and not _raises(node):
            yield f"{source.name}:{node.lineno}: swallows every error"


def settings_only(source: Source) -> Iterator[str]:
    """Only `service/settings.py` reads the environment."""
    if source.name == "service/settings.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb"):
            yield f"{source.name}:{node.lineno}: reads the environment"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            for name in node.names:
                if name.name in ("environ", "getenv", "environb"):
                    yield f"{source.name}:{node.lineno}: reads the environment"


EVERYWHERE: tuple[Rule, ...] = (
    short_file,
    short_functions,
    narrow_classes,
    telling_names,
    no_mixins,
    absolute_imports,
)
IN_THE_PRODUCT: tuple[Rule, ...] = (open_failures, settings_only)


def _classes(source: Source) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def _named(node: ast.ClassDef) -> Iterator[str]:
    """The class's own name and those of its parents."""
    yield node.name
    yield from (ast.unparse(parent).rpartition(".")[2] for parent in node.bases)


def _is_property(method: Function) -> bool:
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in method.decorator_list}
    return bool(marks & {"property", "cached_property", "setter"})


def _is_blind(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))
