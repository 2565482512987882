"""The table behind `medtune runs`: every run folder below a folder, and how far each has come.

Covered: what manifest.json, recipe.json and evaluation/summary.json say. Not covered: running anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from medtune.errors import RunDirError
from medtune.pipeline import STAGES
from medtune.run_dir import RunDir, read_json


def table(folder: Path) -> Table:
    """One row per run in `folder`, the newest last. Raises RunDirError where there is none."""
    found = [RunDir(path.parent) for path in folder.glob("*/manifest.json")]
    if not found:
        raise RunDirError(f"{folder}: no runs here. Start one: medtune run recipes/starter.yaml")
    rows = sorted((_row(run_dir) for run_dir in found), key=lambda row: row[-1])
    view = Table("run", "base", "method", *STAGES, "ROUGE-L base", "tuned", "last stage (UTC)")
    for row in rows:
        view.add_row(*row)
    return view


def _row(run_dir: RunDir) -> list[str]:
    try:
        manifest, recipe = run_dir.manifest(), read_json(run_dir.path / "recipe.json")
        stages = manifest["stages"]
        done = ["done" if name in stages else "-" for name in STAGES]
        scores = _scores(run_dir) if "evaluate" in stages else ["-", "-"]
        finished = max((facts["finished"] for facts in stages.values()), default="")
        model, method = recipe["model"], recipe["tune"]["method"]
        method += f" on {model['quantization']}" if model["quantization"] != "none" else ""
        return [run_dir.path.name, model["base"], method, *done, *scores, finished.replace("T", " ").rstrip("Z")]
    except (RunDirError, KeyError, TypeError):
        return [run_dir.path.name, "damaged", "", *("?" for _ in STAGES), "", "", ""]


def _scores(run_dir: RunDir) -> list[str]:
    systems = read_json(run_dir.evaluation / "summary.json")["systems"]
    return [_score(systems.get(name)) for name in ("base", "tuned")]


def _score(system: dict[str, Any] | None) -> str:
    interval = system["metrics"]["rouge_l"] if system else None
    return f"{interval['value']:.3f}" if interval else "-"
