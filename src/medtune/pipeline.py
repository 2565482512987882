"""The stages in order: the only file that knows them all. A stage is imported when its turn comes.

Covered: which stages must run, the manifest's facts about the run as a whole, what is printed between the stages.
Not covered: what a stage does (each package's `stage`) and how it goes on when it was cut off.

A stage is up to date when its fingerprint, chained to those of the stages before it, is the one that it finished with.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from medtune.errors import PrerequisiteError, RunDirError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, environment, hash_of, read_json, write_json


@dataclass(frozen=True)
class Stage:
    """Where a stage's `fingerprint` and `run` are, and what must lie in the run's folder when it is done."""

    module: str
    artifacts: tuple[str, ...]


STAGES = {
    "data": Stage("medtune.data.stage", ("data/train.jsonl", "data/validation.jsonl", "data/test.jsonl")),
    "tune": Stage("medtune.tuning.stage", ("adapter", "tuning.json")),
    "knowledge": Stage("medtune.knowledge.stage", ("knowledge",)),
    "evaluate": Stage("medtune.evaluation.stage", ("evaluation/summary.json", "report.html")),
}

OWN = "Apache-2.0"

Watch = Callable[[int, float], None]
console = Console()


def run(recipe: Recipe, run_dir: RunDir, only: str | None = None, watch: Watch | None = None) -> None:
    """Bring the stages up to date, or `only` one of them, for which those before it must be.

    `watch(step, validation_loss)` is told of every evaluation during tuning; what it raises ends the run, resumable.
    Raises RunDirError for a folder that is no run's, or that another process works in; and what a stage raises.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and only != "tune":
        raise PrerequisiteError(
            "Several processes can only tune: torchrun ... -m medtune.cli tune RECIPE. Run the rest alone."
        )
    if int(os.environ.get("RANK", "0")) > 0:
        _join(recipe, run_dir)
        return
    if only != "data":
        require_base(recipe)
    with _opened(run_dir):
        changed = _changed_options(recipe, run_dir)
        chain = ""
        for name in STAGES if only is None else list(STAGES)[: list(STAGES).index(only) + 1]:
            chain, is_done = _state(name, chain, recipe, run_dir)
            if is_done:
                console.print(f"{name}: up to date", style="dim")
            elif only in (None, name):
                _announce(name, changed, run_dir)
                handed = {"watch": watch} if name == "tune" and watch else _handed(name, recipe, run_dir)
                _run_stage(name, chain, recipe, run_dir, handed)
            else:
                raise RunDirError(
                    f"{run_dir.path}: the {name} stage, which {only} builds on, is not up to date for this recipe. "
                    f"Run all stages: medtune run RECIPE --out {run_dir.path}"
                )
        _write_facts(recipe, run_dir)
        if "knowledge" in run_dir.manifest()["stages"]:
            _note_guards(recipe, run_dir)


def require_base(recipe: Recipe) -> None:
    """Raise ModelError for a missing embedded model now, not after the data stage."""
    if recipe.model.base == "starter":
        from medtune.models import loading

        loading.published(recipe.model)


def _join(recipe: Recipe, run_dir: RunDir) -> None:
    """Tune beside process 0, which keeps the books; where it has nothing to tune it would be waited for in vain."""
    chain, has_data = _state("data", "", recipe, run_dir)
    if has_data and not _state("tune", chain, recipe, run_dir)[1]:
        importlib.import_module(STAGES["tune"].module).run(recipe, run_dir)


def _state(name: str, chain: str, recipe: Recipe, run_dir: RunDir) -> tuple[str, bool]:
    """The stage's fingerprint, chained to `chain`; whether it finished with that, and its artifacts are there."""
    stage = importlib.import_module(STAGES[name].module)
    inputs = (recipe,) if name == "data" else (recipe, run_dir)
    chain = hash_of(chain, stage.fingerprint(*inputs))
    are_there = all((run_dir.path / artifact).exists() for artifact in STAGES[name].artifacts)
    return chain, are_there and run_dir.is_done(name, chain)


def _opened(run_dir: RunDir) -> Any:
    """The folder's lock; a folder that holds something other than a run is left alone."""
    inside = {path.name for path in run_dir.path.iterdir()} if run_dir.path.is_dir() else set()
    if inside - {".lock"} and not inside & {"manifest.json", "recipe.json"}:
        raise RunDirError(f"{run_dir.path}: this folder is not empty and not a run's. Choose another --out.")
    return run_dir.lock()


def _write_facts(recipe: Recipe, run_dir: RunDir) -> None:
    """The resolved recipe and what holds for the run as a whole."""
    write_json(run_dir.path / "recipe.json", recipe.model_dump(mode="json"))
    seeds = {"seed": recipe.seed, "data.split.seed": recipe.data.split.seed}
    licences = _licences(recipe, run_dir)
    run_dir.update_manifest(name=recipe.name, environment=environment(), seeds=seeds, licences=licences)


def _licences(recipe: Recipe, run_dir: RunDir) -> dict[str, Any]:
    """Whose terms hold for the run's artifacts; what is loaded at run time keeps its own."""
    published = read_json(Path(__file__).parent / "models" / "shapes.json")
    known = {name: shape["licence"] for name, shape in published.items()} | {"scratch": OWN, "starter": OWN}
    card = run_dir.data / "data_card.json"
    sources = read_json(card)["sources"] if card.exists() else []
    data = {source["path"]: list(source["licences"]) for source in sources}
    return {"medtune": OWN, "base": known.get(recipe.model.base, "not known here: see its publisher"), "data": data}


def _changed_options(recipe: Recipe, run_dir: RunDir) -> list[str]:
    """Options that differ from those of the last run in this folder."""
    path = run_dir.path / "recipe.json"
    return _changed(read_json(path), recipe.model_dump(mode="json")) if path.exists() else []


def _changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted names of the options that differ."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [path]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [line for name in names for line in _changed(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))]


def _announce(name: str, changed: list[str], run_dir: RunDir) -> None:
    """Open the stage's part of the output, and say why a stage that was done before runs again."""
    console.rule(name)
    if name in run_dir.manifest()["stages"]:
        because = ", ".join(changed) or "its files, or a stage before it"
        console.print(f"{name} ran here before; changed since: {because}", markup=False, highlight=False)


def _run_stage(name: str, chain: str, recipe: Recipe, run_dir: RunDir, handed: dict[str, Any]) -> None:
    """Run one stage. From here on it and those after it are out of date, even if this is cut off."""
    _write_facts(recipe, run_dir)
    stages, earlier = run_dir.manifest()["stages"], list(STAGES)[: list(STAGES).index(name)]
    run_dir.update_manifest(stages={done: facts for done, facts in stages.items() if done in earlier})
    start = time.perf_counter()
    stage = importlib.import_module(STAGES[name].module)
    stage.run(recipe, run_dir, **handed)
    run_dir.finish(name, chain, seconds=round(time.perf_counter() - start, 1))
    if hasattr(stage, "tidy"):
        stage.tidy(run_dir)


def _handed(name: str, recipe: Recipe, run_dir: RunDir) -> dict[str, Any]:
    """What a stage is given beside recipe and folder: the evaluation, those of its systems that it may not know."""
    wanted = [system for system in recipe.evaluate.systems if system in ("retrieval", "assistant")]
    if name != "evaluate" or not wanted:
        return {}
    from medtune.assistant.open import measured

    _note_guards(recipe, run_dir)
    return {"others": lambda: measured(recipe, run_dir, wanted)}


def _note_guards(recipe: Recipe, run_dir: RunDir) -> None:
    """The manifest's hash of the guards that this run is made with: an assistant is opened with no others."""
    from medtune.assistant.guards import load_guards

    run_dir.update_manifest(guards=load_guards(recipe.assistant.guards, None).hash)


def show_outcome(run_dir: RunDir) -> None:
    """The verdict, where the report lies, and what to do next."""
    summary = run_dir.evaluation / "summary.json"
    if "evaluate" not in run_dir.manifest()["stages"]:
        console.print(f"Next: medtune run {run_dir.path}", markup=False)
        return
    console.rule()
    found = read_json(summary)
    console.print(found["verdict"]["sentence"], style="bold", markup=False, highlight=False)
    if found.get("seen"):
        console.print(found["seen"]["sentence"], markup=False, highlight=False)
    for warning in found["warnings"]:
        console.print(f"  {warning}", style="yellow", markup=False, highlight=False)
    console.print(f"Report: {run_dir.path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Next:   medtune chat {run_dir.path}   talks to it", markup=False, highlight=False, soft_wrap=True)
    console.print(
        "        medtune runs   compares all runs; medtune run RECIPE KEY=VALUE --out DIR   tries another option"
    )
