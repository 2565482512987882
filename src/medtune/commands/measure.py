"""`medtune audit`: what a run's figures would be in a notebook."""

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
