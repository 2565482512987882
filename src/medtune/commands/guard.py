"""`medtune guard`: train the guards' heads, measure the guards, and run them over a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medtune.assistant.guards import Guards

app = typer.Typer(name="guard", help="Train, measure and run the guards.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Lines with `text` or `messages`.")]
EncoderName = Annotated[str, typer.Option(help="Sentence encoder: auto (MiniLM where installed), or none.")]


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Folder with the public files MeQSum, MTS-Dialog and MedQuAD.")],
    out: Annotated[Path | None, typer.Option(help="Where the weights go. [default: medtune's own]")] = None,
) -> None:
    """Rebuild the guards' heads from the examples that ship and a folder of public files."""
    from medtune.assistant import training

    training.run(data, out)


@app.command()
def evaluate(
    file: File,
    encoder: EncoderName = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sensitivity, specificity, AUROC on lines labelled `emergency`, `crisis`, `in_scope`, `injection`; every miss."""
    from medtune.assistant import cases, guard_report

    given = cases.read(file)
    measured = guard_report.measure(given, guard_report.verdicts(_guards(encoder), given))
    if as_json:
        print(guard_report.as_json(measured))
    else:
        guard_report.show(measured)


@app.command()
def check(
    file: File,
    out: Annotated[Path, typer.Option(help="File for the verdicts, one JSON line per message.")],
    encoder: EncoderName = "auto",
) -> None:
    """Write each line's id with the verdicts emergency, crisis and in_scope."""
    from medtune.assistant import cases, guard_report

    given = cases.read(file)
    guard_report.write_verdicts(out, given, guard_report.verdicts(_guards(encoder), given))
    print(f"{out}: verdicts on {len(given)} messages")


def _guards(encoder: str) -> Guards:
    from medtune.assistant.guards import load_guards
    from medtune.models.encoder import load_encoder
    from medtune.recipe_assistant import GuardsSection

    return load_guards(GuardsSection(), load_encoder(encoder))
