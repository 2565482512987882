"""The knowledge stage: `assistant.knowledge` in, `run/knowledge/` out.

Not covered: reading sources (`passages`), the index (`index`), searching (`search`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from medtune.errors import DataError, RunDirError
from medtune.knowledge import index as indexing
from medtune.knowledge.passages import read_entries, source_files
from medtune.recipe import Recipe
from medtune.recipe_assistant import KnowledgeSection, KnowledgeSource
from medtune.run_dir import RunDir, hash_of

if TYPE_CHECKING:
    from medtune.knowledge.index import Index


def folder(run_dir: RunDir) -> Path:
    """Where a run's index lies."""
    return run_dir.path / "knowledge"


def fingerprint(recipe: Recipe, run_dir: RunDir) -> str:
    """Changes when the sources, their files, or the encoder change (for `auto`: also when it is installed)."""
    from medtune.models.encoder import PACKAGE

    del run_dir
    section = recipe.assistant.knowledge
    is_installed = section.encoder == "auto" and importlib.util.find_spec(PACKAGE) is not None
    options = section.model_dump(include={"sources", "encoder"})
    return hash_of(indexing.VERSION, options, is_installed, source_files(section.sources))


def run(recipe: Recipe, run_dir: RunDir) -> None:
    """Build the run's index and note it in the manifest. Without sources there is none.

    Raises DataError (a source is wrong), PrerequisiteError (a reader or the encoder is missing) or RunDirError.
    """
    section = recipe.assistant.knowledge
    if not section.sources:
        folder(run_dir).mkdir(parents=True, exist_ok=True)  # the stage is done: its folder is there
        run_dir.update_manifest(knowledge=None)
        return
    manifest = build_section(section, folder(run_dir))
    run_dir.update_manifest(
        knowledge={key: manifest[key] for key in ("hash", "passages", "encoder", "sources", "licences")}
    )


def build_section(section: KnowledgeSection, out: Path) -> dict[str, Any]:
    """Build the index of `section` in `out` and say what it holds. Returns the index's manifest; raises as `run`."""
    from medtune.models.encoder import load_encoder

    manifest = indexing.build(read_entries(section.sources), out, load_encoder(section.encoder))
    how = "words and meaning" if manifest["encoder"] else "words alone"
    Console().print(f"{manifest['passages']} passages, found by {how}", markup=False, highlight=False)
    return manifest


def section_of(sources: Sequence[str], encoder: str) -> KnowledgeSection:
    """The section for sources written as LAYOUT:PATH. Raises DataError for one that is not."""
    parts = [source.partition(":") for source in sources]
    for source, (layout, colon, path) in zip(sources, parts, strict=True):
        if not (layout and colon and path):
            raise DataError(
                f"--source {source}: expected LAYOUT:PATH, such as medquad_xml:MedQuAD or documents:folder."
            )
    return KnowledgeSection(
        sources=tuple(KnowledgeSource(layout=layout, path=path) for layout, _, path in parts), encoder=encoder
    )


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
