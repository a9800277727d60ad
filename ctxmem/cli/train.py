"""Commands that train what ctxmem ships: `train reranker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxmem.cli import output
from ctxmem.cli.options import Json
from ctxmem.errors import InvalidInput

trains = typer.Typer(no_args_is_help=True, help="Train models on your own data.")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    trains.command("reranker")(reranker)
    app.add_typer(trains, name="train")


def reranker(
    folder: Annotated[Path, typer.Argument(help="Folder with train.jsonl and dev.jsonl.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Where checkpoints go; FOLDER/run by default.")] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="Time limit; 0 for none.")] = 60.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of sampling and order.")] = 13,
    json_: Json = False,
) -> None:
    """Train the reranker on rows {"query", "positives", "negatives", "set"?}; an interrupted run goes on."""
    from ctxmem.lm.rerank.training import Recipe, train_reranker

    for name in ("train.jsonl", "dev.jsonl"):
        if not (folder / name).is_file():
            raise InvalidInput(f"{folder} has no {name}")
    recipe = Recipe(seconds=60 * minutes, epochs=epochs, seed=seed)
    with output.working() as progress:
        task = progress.add_task("training", total=1.0)
        done = train_reranker(
            folder,
            out or folder / "run",
            recipe=recipe,
            progress=lambda stage, share: progress.update(task, description=stage, completed=share),
        )
    if json_:
        output.print_json({"weights": str(done.weights), "mean_reciprocal_rank": done.best})
    else:
        output.messages().print(f"{done.weights}: mean reciprocal rank {done.best:.3f} on dev.jsonl")
