"""`medtune audit` and `medtune compare`: what a run's figures would be in a notebook, and runs side by side."""

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
