"""The table behind `medtune runs`: every run folder below a folder, and how far each has come.

Covered: what manifest.json, recipe.json and evaluation/summary.json say. Not covered: running anything.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.table import Table

from medtune.errors import RunDirError
from medtune.pipeline import STAGES
from medtune.run_dir import RunDir, read_json


def table(folder: Path) -> Table:
    """One row per run in `folder`, in the order in which they were last worked on, the newest last.

    Raises RunDirError where there is none.
    """
    found = [RunDir(path.parent) for path in folder.glob("*/manifest.json")]
    if not found:
        raise RunDirError(f"{folder}: no runs here. Start one: medtune run recipes/starter.yaml")
    view = Table("run", "base, method", "state", "ROUGE-L", "when (UTC)")
    view.columns[0].overflow = "fold"
    for _, row in sorted(_row(run_dir) for run_dir in found):
        view.add_row(*row)
    return view


def _row(run_dir: RunDir) -> tuple[float, tuple[str, ...]]:
    """When the run was last worked on, and its line."""
    changed = run_dir.manifest_path.stat().st_mtime
    try:
        manifest, recipe = run_dir.manifest(), read_json(run_dir.path / "recipe.json")
        done = [name for name in STAGES if name in manifest["stages"]]
        model, method = recipe["model"], recipe["tune"]["method"]
        method += f" on {model['quantization']}" if model["quantization"] != "none" else ""
        scores = _scores(run_dir) if "evaluate" in done else "-"
        cells = (f"{model['base']}, {method}", _state(done), scores)
    except (RunDirError, KeyError, TypeError):
        cells = ("", "damaged", "")
    when = time.strftime("%m-%d %H:%M", time.gmtime(changed))
    return changed, (run_dir.path.name, *cells, when)


def _state(done: list[str]) -> str:
    """`done`, or the first stage that is still to run."""
    missing = next((name for name in STAGES if name not in done), None)
    return "done" if missing is None else f"before {missing}"


def _scores(run_dir: RunDir) -> str:
    """Base and tuned; how sure that is stands in the report."""
    systems = read_json(run_dir.evaluation / "summary.json")["systems"]
    return " → ".join(_score(systems.get(name)) for name in ("base", "tuned"))


def _score(system: dict[str, Any] | None) -> str:
    interval = system["metrics"]["rouge_l"] if system else None
    return f"{interval['value']:.3f}" if interval else "-"
