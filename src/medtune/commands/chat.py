"""`medtune chat`: talk to the assistant of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.commands.opening import open_recipe

if TYPE_CHECKING:
    from medtune.models.engine import Engine


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or its recipe.")],
    once: Annotated[str | None, typer.Option(help="Ask this one question and stop.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print the reply as JSON.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OpenAI-compatible server that speaks in place of the tuned model."),
    ] = None,
    engine_model: Annotated[str | None, typer.Option(help="The model that it serves.")] = None,
) -> None:
    """Talk to the assistant of a finished run: guarded, with sources, nothing stored."""
    if as_json and once is None:
        raise typer.BadParameter("needs --once QUESTION", param_hint="--json")
    if (engine is None) != (engine_model is None):
        raise typer.BadParameter("--engine URL and --engine-model NAME belong together", param_hint="--engine")
    recipe, run_dir = open_recipe(run)
    from rich.console import Console

    console = Console()
    with Console(stderr=True).status("opening"):
        from medtune.assistant import terminal
        from medtune.assistant.open import open_assistant

        assistant = open_assistant(recipe, run_dir, _remote(engine, engine_model))
    if once is not None:
        terminal.once(assistant, once, console, as_json=as_json)
    else:
        terminal.chat(assistant, recipe.name, console)


def _remote(url: str | None, name: str | None) -> Engine | None:
    if url is None or name is None:
        return None
    from medtune.models.remote import RemoteEngine

    return RemoteEngine(url, name)
