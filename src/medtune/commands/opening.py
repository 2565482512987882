"""What commands open before they work: a recipe or the folder of a run. Not covered: commands themselves."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.recipe import Recipe
    from medtune.run_dir import RunDir


def open_recipe(
    target: Path, overrides: list[str] | None = None, out: Path | None = None, *, suffix: str = ""
) -> tuple[Recipe, RunDir]:
    """The recipe of a file or of a run's folder, and the folder to work in."""
    from medtune import recipe_file
    from medtune.run_dir import RunDir

    quiet_libraries()
    is_run = (target / "recipe.json").exists()
    resolved = recipe_file.load(target / "recipe.json" if is_run else target, overrides or ())
    home = target if is_run and not suffix else Path("runs") / (resolved.name + suffix)
    return resolved, RunDir(out or home)


def quiet_libraries() -> None:
    """What other libraries tell their own developers is not for our users; medtune's own warnings stay."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|accelerate|bitsandbytes)\.")
