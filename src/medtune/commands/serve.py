"""`medtune serve`: page and API of finished runs, and `medtune keys`: who may use them from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.commands.opening import open_recipe
from medtune.errors import PrerequisiteError

keys_app = typer.Typer(name="keys", help="Make, list and revoke the keys of `medtune serve`.", no_args_is_help=True)

KeyFile = Annotated[Path, typer.Option("--file", help="Where the keys' hashes lie.")]


def serve(
    runs: Annotated[
        list[str], typer.Argument(metavar="[NAME=]RUN...", help="Folders of runs, each served under its name.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OpenAI-compatible server that speaks for the runs, under their names."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65_535)] = 8000,
    store: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Store conversations, masked: a file, sqlite:///... or postgresql+psycopg://..."
        ),
    ] = "",
    keep_days: Annotated[
        float, typer.Option(help="With --store: after so many days conversations are deleted.", min=0)
    ] = 30.0,
    keys: Annotated[Path | None, typer.Option(help="Keys made by `medtune keys create`.")] = None,
) -> None:
    """Serve finished runs: the page at /, OpenAI's API at /v1. Nothing is stored unless --store says where."""
    opened = {}
    for text in runs:
        name, _, folder = text.rpartition("=")
        recipe, run_dir = open_recipe(Path(folder))
        name = name or run_dir.path.name
        if name in opened:
            raise typer.BadParameter(f"two runs are called {name!r}; give one another name: NAME=RUN", param_hint="RUN")
        opened[name] = (recipe, run_dir)
    try:
        from medtune.serving import server
    except ModuleNotFoundError as error:
        raise PrerequisiteError(f"medtune serve needs {error.name}: pip install 'medtune[serve]'") from error
    server.run(opened, engine, server.Options(host, port, store, keep_days, keys))


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="chat, feedback or metrics; repeat it. [default: chat and feedback]")
    ] = None,
    file: KeyFile = Path("keys.json"),
) -> None:
    """Make a key and print it, once."""
    from medtune.serving.keys import Keys

    keys = Keys(file)
    key, text = keys.create(name, tuple(scope)) if scope else keys.create(name)
    typer.echo(text)
    typer.echo(
        f"Key {key.id} for {name} ({', '.join(key.scopes)}). It is not shown again; {file} holds its hash.", err=True
    )


@keys_app.command("list")
def show(file: KeyFile = Path("keys.json")) -> None:
    """The keys of a file: id, name, scopes, since when, until when."""
    from rich import print as show_rich
    from rich.table import Table

    from medtune.serving.keys import Keys

    table = Table("id", "name", "scopes", "made (UTC)", "revoked (UTC)")
    for key in Keys(file).all():
        table.add_row(key.id, key.name, ", ".join(key.scopes), key.created, key.revoked)
    show_rich(table)


@keys_app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `medtune keys list` shows it.")],
    file: KeyFile = Path("keys.json"),
) -> None:
    """End a key: the API refuses it from now on, the page at the next login; only a restart ends open sessions."""
    from medtune.serving.keys import Keys

    key = Keys(file).revoke(id)
    typer.echo(f"Key {key.id} of {key.name} is revoked.")
