"""`medtune audit`, `compare` and `sweep`: a run's figures as notebooks have them, runs side by side, experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.commands.opening import open_recipe

app = typer.Typer()


@app.command()
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was evaluated.")],
) -> None:
    """The figures that notebooks compute beside the honest ones, on the same model and questions."""
    recipe, run_dir = open_recipe(run)
    from medtune.evaluation import audit as auditing

    auditing.run(recipe, run_dir)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of runs that were evaluated.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.html, .csv and .json.")] = Path("."),
) -> None:
    """Runs side by side, paired on the test questions that they share."""
    opened = [open_recipe(run) for run in runs]
    from medtune.evaluation import compare as comparing

    comparing.run(opened, out)


@app.command()
def sweep(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe with a `sweep` section.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="dotted.key=value", help="Options laid over the recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep. [default: runs/NAME-sweep]")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL, as postgresql://...; by default a journal in the folder.")
    ] = None,
) -> None:
    """Tune the recipe's experiments, choose by validation, score the winner once on test. Start it in several
    terminals to share the work; after an interruption the same command goes on."""
    resolved, run_dir = open_recipe(recipe, overrides, out, suffix="-sweep")
    from medtune import sweep as sweeping

    sweeping.run(resolved, run_dir.path, storage)
