"""`medtune sweep`: the experiments around a recipe, tuned and compared on validation; the best is scored once on test.

Covered: prepared data shared by all, going on after an interruption, several processes on one sweep. Not covered: who
does what (`sweep_study`), tuning itself (`pipeline`), the table (`evaluation.experiments`).

A sweep's folder holds `shared/` (the data stage), one run folder per experiment, `study.journal` and
experiments.{json,csv,html}.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from medtune import pipeline
from medtune.errors import MedtuneError, RecipeError, RunDirError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json, read_lines, write_json, write_text
from medtune.sweep_study import Sweep, claim_next, enqueue, locked, open_sweep, state

if TYPE_CHECKING:
    from optuna import Trial

    from medtune.evaluation.experiments import Experiment

console = Console(highlight=False)


def run(recipe: Recipe, folder: Path, storage: str | None = None) -> None:
    """Work on the sweep in `folder` until no experiment is left to begin; the last process to finish chooses.

    `storage` is an Optuna storage URL for machines that share `folder` but cannot share a journal file. Raises as
    `open_sweep` does, and RunDirError where no experiment comes to its end.
    """
    sweep = open_sweep(recipe, folder, storage)
    with locked(folder / ".sweep.lock"):
        pipeline.run(recipe, RunDir(folder / "shared"), only="data")
        enqueue(sweep)
    while claimed := claim_next(sweep):
        trial, name, options, claim = claimed
        with claim:
            _experiment(sweep, trial, name, options)
    with locked(folder / ".sweep.lock"):
        running = [trial for trial in sweep.study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        if running:
            names = ", ".join(str(trial.user_attrs.get("name", trial.number)) for trial in running)
            console.print(f"Still running elsewhere: {names}. The last process to finish chooses.", markup=False)
        else:
            _finish(sweep)


# One experiment -------------------------------------------------------------------------------------------------------


def _experiment(sweep: Sweep, trial: Trial, name: str, options: Mapping[str, Any]) -> None:
    """Tune it and answer the validation questions; a mistake of its own fails it, and the sweep goes on."""
    from optuna import TrialPruned

    settings = ", ".join(f"{key}={value}" for key, value in options.items()) or "the recipe as it is"
    console.rule(f"{name}: {settings}")
    evaluations = 0

    def watch(step: int, loss: float) -> None:
        nonlocal evaluations
        evaluations += 1
        trial.report(-loss if sweep.section.choose_by == "rouge_l" else loss, evaluations)
        if trial.user_attrs.get("is_search") and trial.should_prune():
            raise TrialPruned(f"ended early at step {step}: validation loss {loss:.4f} was worse than the median")

    try:
        value = _value(sweep, name, options, watch)
    except TrialPruned as pruned:
        trial.set_user_attr("note", str(pruned))
        sweep.study.tell(trial, state=state("PRUNED"))
    except MedtuneError as error:
        console.print(f"{name} failed: {error}", style="red", markup=False)
        trial.set_user_attr("error", str(error))
        sweep.study.tell(trial, state=state("FAIL"))
    else:
        sweep.study.tell(trial, value)


def _value(sweep: Sweep, name: str, options: Mapping[str, Any], watch: pipeline.Watch) -> float:
    """What the experiment reaches in `sweep.choose_by`."""
    from medtune.evaluation import validation

    recipe, run_dir = sweep.recipe_of(name, options), sweep.run_dir(name)
    _share(RunDir(sweep.folder / "shared"), run_dir)
    if any(key.startswith("data.") for key in options):
        pipeline.run(recipe, run_dir, only="data")
    pipeline.run(recipe, run_dir, only="tune", watch=watch)
    records = validation.answer(recipe, run_dir, "tuned", _records(run_dir))
    if sweep.section.choose_by == "validation_loss":
        loss = read_json(run_dir.path / "tuning.json")["best_validation_loss"]
        if loss is None:
            raise RecipeError("sweep.choose_by: validation_loss needs a validation split. Set data.split.validation.")
        return float(loss)
    from medtune.evaluation.statistics import Bootstrap
    from medtune.evaluation.summary import system_metrics

    measured = system_metrics("tuned", records, Bootstrap(100, 0))[sweep.section.choose_by]
    return float((measured or {})["value"] or 0.0)


def _share(shared: RunDir, run_dir: RunDir) -> None:
    """Give a new run the prepared data: links where the file system has them, else copies."""
    if "data" in run_dir.manifest()["stages"]:
        return
    run_dir.data.mkdir(parents=True, exist_ok=True)
    for path in shared.data.iterdir():
        target = run_dir.data / path.name
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
    run_dir.update_manifest(stages={"data": shared.manifest()["stages"]["data"]})


def _records(run_dir: RunDir) -> Path:
    return run_dir.path / "validation" / "records.jsonl"


# The end --------------------------------------------------------------------------------------------------------------


def _finish(sweep: Sweep) -> None:
    """Choose by validation, score the winner on test, write and print the table."""
    from medtune.evaluation import experiments, validation
    from medtune.evaluation.statistics import Bootstrap

    finished = {t.user_attrs["name"]: t for t in sweep.study.get_trials(deepcopy=False) if t.user_attrs.get("name")}
    complete = {name: trial for name, trial in finished.items() if trial.state.name == "COMPLETE"}
    if not complete:
        raise RunDirError(f"{sweep.folder}: no experiment came to its end, so there is nothing to choose from.")
    best = sweep.study.best_trial.user_attrs["name"]
    recipe, run_dir = sweep.recipe_of(best, _options(complete[best])), sweep.run_dir(best)
    base = validation.answer(recipe, run_dir, "base", sweep.folder / "baseline.jsonl")
    pipeline.run(recipe, run_dir)
    rows = [_row(sweep, name, trial) for name, trial in finished.items()]
    bootstrap = Bootstrap(sweep.recipe.evaluate.resamples, sweep.recipe.seed)
    result = experiments.build(rows, experiments.Experiment("untuned base", base), bootstrap)
    verdict = read_json(run_dir.evaluation / "summary.json")["verdict"]
    scored = [name for name in complete if name != best and (sweep.run_dir(name).evaluation / "summary.json").exists()]
    again = f" The test split had been scored before for {', '.join(scored)}." if scored else ""
    unit = sweep.section.choose_by.replace("_", " ")
    conclusion = f"Chosen on validation: {best} ({unit} {sweep.study.best_value:.4f})."
    lead = f"On the test split, scored once for the chosen one: {verdict['sentence']}{again}"
    result = {"chosen": best, "choose_by": sweep.section.choose_by, "test": verdict, **result}
    write_json(sweep.folder / "experiments.json", result)
    write_text(sweep.folder / "experiments.csv", experiments.as_csv(result))
    title = f"{sweep.recipe.name} · medtune sweep"
    write_text(sweep.folder / "experiments.html", experiments.as_html(result, title, lead, conclusion))
    console.rule()
    console.print(experiments.show(result))
    console.print(conclusion, style="bold", markup=False)
    console.print(lead, markup=False)
    console.print(f"Table: {sweep.folder / 'experiments.html'}", markup=False, soft_wrap=True)


def _options(trial: Any) -> dict[str, Any]:
    return trial.user_attrs.get("options") or dict(trial.params)


def _row(sweep: Sweep, name: str, trial: Any) -> Experiment:
    from medtune.evaluation.experiments import Experiment
    from medtune.evaluation.runner import record_of

    run_dir, note = sweep.run_dir(name), trial.user_attrs.get("error") or trial.user_attrs.get("note") or ""
    settings = ", ".join(f"{key}={value}" for key, value in _options(trial).items())
    tuning = run_dir.path / "tuning.json"
    is_complete = trial.state.name == "COMPLETE"
    return Experiment(
        name,
        [record_of(line) for line in read_lines(_records(run_dir))] if is_complete else [],
        sweep.recipe_of(name, _options(trial)),
        read_json(tuning) if is_complete else None,
        "; ".join(part for part in (settings, note) if part),
    )
