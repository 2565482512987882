"""The command line: arguments and nothing else. Each command imports what it needs when it runs.

Exit codes: 0 done; 2 a mistake that is explained in one paragraph; 130 interrupted. A traceback means a bug in medtune.
"""

from __future__ import annotations

import errno
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from medtune.commands import chat, export, guard, knowledge, library, measure, serve
from medtune.commands.opening import open_recipe
from medtune.errors import MedtuneError

app = typer.Typer(
    name="medtune",
    help="From medical questions and answers and an open language model to an assistant that has been measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(library.app)
app.add_typer(guard.app)
app.add_typer(knowledge.app)
app.add_typer(measure.app)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(export.export)
app.add_typer(serve.keys_app)

Target = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML), or the folder of a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="dotted.key=value", help="Options laid over the recipe, such as tune.lora.rank=32."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/NAME]")]


def main() -> None:
    """Run the command line; mistakes that medtune explains end without a traceback."""
    try:
        app()
    except MedtuneError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"The disk is full ({error.filename or error}). Free some space; the same command goes on.")
    except SystemExit as end:
        if end.code == 130:
            print("\nInterrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        raise


def _print_version(asked: bool) -> None:
    if asked:
        print(metadata.version("medtune"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del version


@app.command()
def check(
    recipe: Target,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run two optimiser steps at the longest batch.")
    ] = False,
) -> None:
    """Before anything is paid for: what the recipe will do, what it will cost, and every mistake in it."""
    resolved, _ = open_recipe(recipe, overrides)
    from medtune import check as checking

    checking.run(resolved, measure=measure)


@app.command()
def run(recipe: Target, overrides: Overrides = None, out: Out = None) -> None:
    """Every stage that is not up to date, from data to report. After an interruption the same command goes on."""
    _run(recipe, overrides, out)


@app.command()
def data(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A recipe (YAML), or a run's folder.")] = None,
    overrides: Overrides = None,
    out: Out = None,
    layouts: Annotated[bool, typer.Option("--layouts", help="List the layouts with their columns and stop.")] = False,
) -> None:
    """The data stage alone: read, clean and split the sources, and print the data card."""
    if layouts:
        _print_layouts()
    elif recipe is None:
        raise typer.BadParameter("a recipe is missing (or --layouts)", param_hint="RECIPE")
    else:
        _run(recipe, overrides, out, "data")


@app.command()
def tune(recipe: Target, overrides: Overrides = None, out: Out = None) -> None:
    """The tuning stage alone; the data stage must be up to date."""
    _run(recipe, overrides, out, "tune")


@app.command("eval")
def evaluate(recipe: Target, overrides: Overrides = None, out: Out = None) -> None:
    """The evaluation stage alone; data and tuning must be up to date."""
    _run(recipe, overrides, out, "evaluate")


@app.command()
def rehearse(
    recipe: Target,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the rehearsal. [default: runs/NAME-rehearsal]")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder with the real tokenizer, where it is at hand.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Local file in the recipe's layout, in place of its source.")
    ] = None,
) -> None:
    """The whole recipe on a shrunken random model and a few rows, so that its mistakes show before a GPU is rented."""
    resolved, run_dir = open_recipe(recipe, overrides, out, suffix="-rehearsal")
    from medtune import rehearse as rehearsal

    rehearsal.run(resolved, run_dir, tokenizer=tokenizer, data=data)


@app.command()
def runs(folder: Annotated[Path, typer.Argument(help="Where the run folders lie.")] = Path("runs")) -> None:
    """The runs so far: state, base, method and result of each."""
    from rich import print as show

    from medtune.runs import table

    show(table(folder))


def _run(target: Path, overrides: list[str] | None, out: Path | None, only: str | None = None) -> None:
    resolved, run_dir = open_recipe(target, overrides, out)
    from medtune import pipeline

    pipeline.run(resolved, run_dir, only)
    pipeline.show_outcome(run_dir)


def _print_layouts() -> None:
    from rich.console import Console

    from medtune.data.stage import describe_layouts

    console = Console(highlight=False)
    for name, columns, example, origin in describe_layouts():
        console.print(name, style="bold")
        for title, text in (("columns", columns), ("example", example), ("from", origin)):
            console.print(f"  {title:<8} {text}", markup=False, soft_wrap=True)


def _fail(message: str) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    console.print("Error:", style="bold red", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":  # for torchrun -m medtune.cli
    main()
