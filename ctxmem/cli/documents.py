"""`ctxmem ingest` and `ctxmem search`: put files in, find passages."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ctxmem.cli import output
from ctxmem.cli.backend import connect
from ctxmem.cli.options import Json, current
from ctxmem.cli.remote import Wire
from ctxmem.errors import InvalidInput

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The collection.")]
User = Annotated[str, typer.Option("--user", help="Whose documents; empty for those that all share.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("ingest")(ingest)
    app.command("search")(search)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders whose files are all taken.")],
    namespace: Namespace = "default",
    user: User = "",
    as_json: Json = False,  # noqa: FBT002 typer reads options from the signature
) -> None:
    """Put files in, each in the place of the one with its path; in folders what cannot be read is passed over."""
    done: list[Wire] = []
    with connect(current()) as backend, output.working() as progress:
        task = progress.add_task("reading")
        for file, named in _files(paths):
            progress.update(task, description=str(file))
            row = {"id": str(file), "name": file.name, "data": base64.b64encode(file.read_bytes()).decode()}
            try:
                told = backend.ingest({"namespace": namespace, "documents": [{**row, "user_id": user}], "wait": True})
            except InvalidInput as error:
                if named:
                    raise
                told = {"written": 0, "chunks": 0, "embedded": 0, "refused": str(error)}
            done.append({"path": str(file), **{key: told[key] for key in told if key != "ids"}})
    if as_json:
        output.print_json(done)
        return
    columns = ("path", "written", "chunks", "embedded", "refused")
    output.screen().print(output.table(columns, [[row.get(name) for name in columns] for row in done]))


def search(
    query: Annotated[str, typer.Argument(help="What is asked.")],
    namespace: Namespace = "default",
    user: User = "",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Most passages.")] = 5,
    rerank: Annotated[bool, typer.Option("--rerank", help="Have the best read again.")] = False,  # noqa: FBT002 as above
    as_json: Json = False,  # noqa: FBT002 as above
) -> None:
    """Find passages, best first."""
    asked: Wire = {"query": query, "namespace": namespace, "top_k": top_k, "rerank": rerank}
    with connect(current()) as backend:
        found = backend.search({**asked, "filters": {"user_id": user}})
    if as_json:
        output.print_json(found)
        return
    rows = [(f"{one['score']:.3f}", one["document_id"], one["start"], one["text"]) for one in found["results"]]
    output.screen().print(output.table(("score", "document", "at", "text"), rows))
    if found["degraded"]:
        output.messages().print(f"not all was done: {', '.join(found['degraded'])}")


def _files(paths: list[Path]) -> Iterator[tuple[Path, bool]]:
    """The files, and whether each was named itself; hidden ones are left out of folders."""
    for path in paths:
        if not path.is_dir():
            yield path, True
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                yield file, False
