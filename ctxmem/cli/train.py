"""Commands that train what ctxmem ships: `train reranker` and `train ccm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxmem.cli import output
from ctxmem.cli.options import Json
from ctxmem.errors import InvalidInput
from ctxmem.stateless import count_tokens

trains = typer.Typer(no_args_is_help=True, help="Train models on your own data.")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    trains.command("reranker")(reranker)
    trains.command("ccm")(ccm)
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


def ccm(
    rows: Annotated[Path, typer.Argument(help="JSON lines of conversations.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="Folder of the run; the adapter is written to it.")],
    *,
    model: Annotated[str, typer.Option(help="Base model: a packaged name, a folder or a hub id.")] = "smollm2",
    minutes: Annotated[float, typer.Option(min=0.0, help="Time limit; 0 for none.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 13,
    json_: Json = False,
) -> None:
    """Train the adapter of compressed context memory; an interrupted run goes on where it was.

    Uses CUDA where torch has it.
    """
    from ctxmem.lm.ccm.training import Recipe, train_adapter

    count_tokens("", model=model)  # writes a packaged model's tokenizer
    recipe = Recipe(seconds=60 * minutes, seed=seed)
    with output.working() as progress:
        task = progress.add_task("training", total=1.0)
        done = train_adapter(
            rows,
            out,
            model=model,
            recipe=recipe,
            progress=lambda stage, share: progress.update(task, description=stage, completed=share),
        )
    if json_:
        output.print_json({"adapter": str(out), "steps": done.step, "seconds": round(done.spent, 1)})
    else:
        output.messages().print(f"{out}: {done.step} steps in {done.spent / 60:.0f} minutes")
