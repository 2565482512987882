"""The knowledge stage: `assistant.knowledge` in, `run/knowledge/` out.

Not covered: reading sources (`passages`), the index (`index`), searching (`search`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from medtune.errors import RunDirError
from medtune.knowledge import index as indexing
from medtune.knowledge.passages import read_entries, source_files
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, hash_of

if TYPE_CHECKING:
    from medtune.knowledge.index import Index


def folder(run_dir: RunDir) -> Path:
    """Where a run's index lies."""
    return run_dir.path / "knowledge"


def fingerprint(recipe: Recipe, run_dir: RunDir) -> str:
    """Changes when the sources, their files, or the encoder change."""
    del run_dir
    section = recipe.assistant.knowledge
    return hash_of(indexing.VERSION, section.model_dump(include={"sources", "encoder"}), source_files(section.sources))


def run(recipe: Recipe, run_dir: RunDir) -> None:
    """Build the run's index and note it in the manifest. Without sources there is none.

    Raises DataError (a source is wrong), PrerequisiteError (a reader or the encoder is missing) or RunDirError.
    """
    from medtune.models.encoder import load_encoder

    section = recipe.assistant.knowledge
    if not section.sources:
        folder(run_dir).mkdir(parents=True, exist_ok=True)  # tells the pipeline that this stage has run
        run_dir.update_manifest(knowledge=None)
        return
    manifest = indexing.build(read_entries(section.sources), folder(run_dir), load_encoder(section.encoder))
    entry = {key: manifest[key] for key in ("hash", "passages", "encoder", "sources", "licences")}
    run_dir.update_manifest(knowledge=entry)
    how = "words and meaning" if manifest["encoder"] else "words alone"
    Console().print(f"{manifest['passages']} passages, found by {how}", markup=False, highlight=False)


def open_run(recipe: Recipe, run_dir: RunDir) -> Index | None:
    """The run's index, ready to search; None for a recipe without sources.

    Raises RunDirError when the stage has not run, or ran for other sources.
    """
    from medtune.models.encoder import load_encoder

    if not recipe.assistant.knowledge.sources:
        return None
    if not (folder(run_dir) / "manifest.json").exists():
        raise RunDirError(
            f"{run_dir.path}: its knowledge index is not built. Run: medtune knowledge build {run_dir.path}"
        )
    return indexing.open_index(folder(run_dir), load_encoder(recipe.assistant.knowledge.encoder))
