"""`medtune export`: a tuned run as others can load it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medtune.commands.opening import open_recipe
from medtune.errors import RecipeError


class To(StrEnum):
    """Where a run can go."""

    merged = "merged"
    hub = "hub"


class Weights(StrEnum):
    """What of it."""

    merged = "merged"
    adapter = "adapter"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    to: Annotated[To, typer.Option(help="One folder for plain transformers, or a repository on the Hub.")] = To.merged,
    weights: Annotated[Weights, typer.Option(help="With --to hub: the adapter alone, or merged.")] = Weights.merged,
    out: Annotated[Path | None, typer.Option(help="Folder to write. [default: RUN/export/TO]")] = None,
    repository: Annotated[str, typer.Option("--repo", metavar="NAME/REPO", help="The repository to push to.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and push nothing.")] = False,
) -> None:
    """The tuned model merged and checked, or with its card for the Hub."""
    recipe, run_dir = open_recipe(run)
    folder = out or run_dir.path / "export" / to.value
    if to is To.hub and not repository and not dry_run:
        raise RecipeError("--to hub needs --repo NAME/REPO, or --dry-run to look at the folder first.")
    from rich import print as show

    from medtune.export import hub, merge

    if to is To.merged:
        facts = merge.merge(recipe, run_dir, folder)
        change = facts["largest_change_after_storing"]
        show(f"{folder}: merged, {facts['dtype']}; logits differ by at most {change:.1e} of the largest")
        return
    hub.prepare(recipe, run_dir, folder, weights.value)
    show(f"{folder}: README.md is the model card; read it before you publish")
    if not dry_run:
        show(hub.push(folder, repository, private=not public))
