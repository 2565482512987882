"""`medtune library`: check a written library, the embedded one or a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="library", help="Check a written library of health topics.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without a callback typer would take the only command for the group itself."""


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A library (.jsonl or .json), or `starter`.")],
    against: Annotated[
        Path | None, typer.Option(help="Folder of texts from which nothing may have been copied.", exists=True)
    ] = None,
) -> None:
    """Schema, links, readability, duplicates, emergencies, doses and review marks. Exit code 1 if there is an error."""
    from medtune.knowledge import library_check

    entries, problems = library_check.check(file, against)
    library_check.show(file, entries, problems)
    if any(problem.is_error for problem in problems):
        raise typer.Exit(1)
