"""The books of a sweep: which experiments there are, which is whose, and what a search tries next.

Covered: Optuna's study in a journal file or behind a URL, experiments held by processes, taken up again after one is
gone. Not covered: running an experiment and choosing the best (`sweep`).

A process holds `claims/NAME.lock` while it works on an experiment. The operating system lets go of it even after
kill -9, so an experiment that the study calls running and nobody holds is put back into the queue.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medtune import recipe_file
from medtune.errors import PrerequisiteError, RecipeError, RunDirError
from medtune.recipe import Recipe
from medtune.recipe_sweep import SearchRange, SweepSection
from medtune.run_dir import RunDir, hash_of

if TYPE_CHECKING:
    from optuna import Study, Trial

PATIENT_TRIALS = 5  # trials of a search before any is ended early


@dataclass(frozen=True)
class Sweep:
    """A recipe, its named experiments as recipes, and where everything lies."""

    recipe: Recipe
    named: Mapping[str, dict[str, Any]]
    folder: Path
    study: Study

    def recipe_of(self, name: str, options: Mapping[str, Any]) -> Recipe:
        return _variant(self.recipe, name, options)

    def run_dir(self, name: str) -> RunDir:
        return RunDir(self.folder / name)

    @property
    def section(self) -> SweepSection:
        return self.recipe.sweep


def open_sweep(recipe: Recipe, folder: Path, storage: str | None) -> Sweep:
    """The sweep in `folder`, begun or gone on with. Raises RecipeError for a wrong experiment before anything runs,
    RunDirError for the folder of another recipe's sweep, PrerequisiteError without Optuna."""
    section = recipe.sweep
    if not section.experiments and not section.space:
        raise RecipeError(
            "sweep: nothing to try. Give sweep.experiments, as [{name: high-lr, tune.learning_rate: 1.0e-4}], or "
            "sweep.space, as {tune.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}."
        )
    named = {
        experiment["name"]: {k: v for k, v in experiment.items() if k != "name"} for experiment in section.experiments
    }
    for name, options in named.items():
        _variant(recipe, name, options)
    start = {key: r.choices[0] if r.choices else _first(r) for key, r in section.space.items()}
    _variant(recipe, "search", start)
    folder.mkdir(parents=True, exist_ok=True)
    study = _study(recipe, folder, storage)
    mark = hash_of(recipe.model_dump(mode="json", exclude={"sweep": True}), section.choose_by)
    with locked(folder / ".sweep.lock"):
        if study.user_attrs.setdefault("recipe", mark) != mark:
            raise RunDirError(f"{folder}: this is a sweep of another recipe. Choose another --out, or undo the change.")
        study.set_user_attr("recipe", mark)
    return Sweep(recipe, named, folder, study)


def _first(values: SearchRange) -> float | None:
    return int(values.low) if values.whole and values.low is not None else values.low


def _variant(recipe: Recipe, name: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of one experiment; raises RecipeError naming the experiment."""
    changed = {**options, "name": f"{recipe.name}-{name}", "sweep.experiments": [], "sweep.space": {}}
    return recipe_file.with_options(recipe, changed, f"sweep, experiment {name}")


def _study(recipe: Recipe, folder: Path, storage: str | None) -> Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise PrerequisiteError("medtune sweep needs Optuna: pip install 'medtune[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage or JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        study_name=recipe.name,
        direction="maximize" if recipe.sweep.choose_by == "rouge_l" else "minimize",
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.MedianPruner(PATIENT_TRIALS) if recipe.sweep.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


def enqueue(sweep: Sweep) -> None:
    """Put every named experiment that is not done or under way into the queue, the failed ones too."""
    known = {}
    for trial in sweep.study.get_trials(deepcopy=False):
        if trial.state.name != "FAIL":
            known[trial.user_attrs.get("name")] = trial.user_attrs.get("options")
    for name, options in sweep.named.items():
        if name not in known:
            sweep.study.enqueue_trial({}, user_attrs={"name": name, "options": options})
        elif known[name] != options:
            raise RunDirError(
                f"{sweep.folder / name}: this experiment ran with {known[name]}, and the recipe now says {options}. "
                "Give the changed one another name."
            )


def claim_next(sweep: Sweep) -> tuple[Trial, str, dict[str, Any], IO[str]] | None:
    """The next experiment, claimed for this process, or None where all are done or held by others."""
    with locked(sweep.folder / ".sweep.lock"):
        for known in sweep.study.get_trials(deepcopy=False):
            if known.state.name == "RUNNING" and (claim := _claim(sweep, str(known.user_attrs.get("name")))):
                claim.close()  # nobody holds it: its process is gone
                sweep.study.tell(known.number, state=state("FAIL"), skip_if_finished=True)
                sweep.study.enqueue_trial(known.params, user_attrs={**known.user_attrs})
        trials = sweep.study.get_trials(deepcopy=False)
        waiting = any(trial.state.name == "WAITING" for trial in trials)
        searched = [
            t for t in trials if t.user_attrs.get("is_search") and (t.state.name != "FAIL" or "error" in t.user_attrs)
        ]
        if not waiting and not (sweep.section.space and len(searched) < sweep.section.trials):
            return None
        trial = sweep.study.ask()
        name = trial.user_attrs.get("name")
        if name is None:
            name = f"trial-{trial.number:03d}"
            trial.set_user_attr("name", name)
            trial.set_user_attr("is_search", True)
        options = trial.user_attrs.get("options")
        if options is None:
            options = _suggest(sweep, trial)
        claim = _claim(sweep, name)
        if claim is None:
            raise RunDirError(f"{sweep.folder / name}: another process works on this experiment.")
        return trial, name, options, claim


def _suggest(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, values in sweep.section.space.items():
        if values.choices:
            found[key] = trial.suggest_categorical(key, list(values.choices))
        elif values.low is not None and values.high is not None:
            low, high = values.low, values.high
            found[key] = (
                trial.suggest_int(key, int(low), int(high), log=values.log)
                if values.whole
                else trial.suggest_float(key, low, high, log=values.log)
            )
    return found


def _claim(sweep: Sweep, name: str) -> IO[str] | None:
    path = sweep.folder / "claims" / f"{name}.lock"
    path.parent.mkdir(exist_ok=True)
    file = open(path, "w")  # noqa: SIM115 - held while the experiment runs
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone on the sweep's books; waits for whoever is at them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def state(name: str) -> Any:
    """Optuna's state of a trial by its name."""
    from optuna.trial import TrialState

    return TrialState[name]
