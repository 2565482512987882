"""Experiments on tiny real models: shared data, no experiment twice, chosen by validation, scored once on test."""

import csv
import json
import random
import signal
import subprocess
import sys
import time

import optuna
import pytest
import yaml

from medtune import sweep, sweep_study
from medtune.errors import RecipeError, RunDirError, TuningError
from medtune.recipe_file import load
from medtune.run_dir import RunDir, read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
TOPICS = ["asthma", "gout", "scurvy", "rickets", "measles", "mumps", "rabies", "anthrax", "cholera", "tetanus"]


@pytest.fixture
def recipe_path(tmp_path):
    """Writes a recipe of a tiny sweep and returns its path: recipe_path(experiments=[...], space={...})."""
    generator = random.Random(0)
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "topic"])
        for topic in [f"{topic} {number}" for topic in TOPICS for number in range(3)] * 2:
            words = " ".join(generator.choices(TOPICS, k=6))
            writer.writerow([f"What about {words} ?", f"Of {topic} one knows {generator.random()} {words}.", topic])

    def write(**section):
        tree = {
            "name": "tiny",
            "model": {"base": "scratch", "device": "cpu", "dtype": "float32", "attention": "sdpa",
                      "scratch": {"layers": 1, "width": 16, "heads": 2, "vocabulary": 320}},
            "data": {"sources": [{"layout": "question_answer", "path": str(tmp_path / "rows.csv")}],
                     "split": {"validation": 0.2, "test": 0.2}, "max_length": 64, "max_truncated": 1},
            "tune": {"method": "full", "max_steps": 6, "evaluations": 2, "sample_answers": 0, "batch_size": 4,
                     "rows": "padded"},
            "evaluate": {"max_new_tokens": 6, "latency_questions": 1, "resamples": 200, "encoder": "none",
                         "systems": ["base", "tuned"]},
            "assistant": {"knowledge": {"sources": [], "encoder": "none"}},
            "sweep": {"questions": 8, **section},
        }  # fmt: skip
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
        return tmp_path / "r.yaml"

    return write


RATES = [{"name": "slow", "tune.learning_rate": 1e-6}, {"name": "fast", "tune.learning_rate": 3e-2}]


def test_named_experiments_share_the_data_and_the_best_is_scored_on_test(recipe_path, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    sweep.run(load(recipe_path(experiments=RATES)), folder)
    result = read_json(folder / "experiments.json")
    assert [row["name"] for row in result["rows"]] == ["untuned base", "slow", "fast"]
    assert result["chosen"] == "fast"
    base, slow, fast = csv.DictReader((folder / "experiments.csv").read_text().splitlines())
    assert base["learning_rate"] == base["improvement"] == ""
    assert float(slow["learning_rate"]) == 1e-6
    assert float(fast["validation_loss"]) < float(slow["validation_loss"])
    assert float(fast["improvement_low"]) <= float(fast["improvement"]) <= float(fast["improvement_high"])
    assert (folder / "fast" / "evaluation" / "summary.json").exists()
    assert not (folder / "slow" / "evaluation").exists(), "only the chosen one sees the test"
    inode = (folder / "shared" / "data" / "train.jsonl").stat().st_ino
    assert all((folder / name / "data" / "train.jsonl").stat().st_ino == inode for name in ("slow", "fast"))
    page = (folder / "experiments.html").read_text()
    assert "Chosen on validation: fast" in page
    tuned = []
    monkeypatch.setattr(sweep, "_value", lambda *a: tuned.append(a))
    sweep.run(load(recipe_path(experiments=RATES)), folder)
    assert tuned == [], "nothing is left to do"
    assert read_json(folder / "experiments.json") == result


def test_a_search_tries_as_often_as_it_says_and_a_failure_does_not_stop_it(recipe_path, tmp_path, monkeypatch):
    space = {"tune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "tune.batch_size": {"choices": [2, 4]}}
    recipe, folder = load(recipe_path(space=space, trials=3, choose_by="bits_per_byte")), tmp_path / "sweep"
    whole, calls = sweep._value, []

    def fails_first(*arguments):
        calls.append(arguments[1])
        if len(calls) == 1:
            raise TuningError("loss is not a number")
        return whole(*arguments)

    monkeypatch.setattr(sweep, "_value", fails_first)
    sweep.run(recipe, folder)
    assert calls == ["trial-000", "trial-001", "trial-002"]
    rows = {row["name"]: row for row in read_json(folder / "experiments.json")["rows"]}
    assert "loss is not a number" in rows["trial-000"]["note"]
    assert rows["trial-000"]["rouge_l"] is None
    assert all(1e-4 <= rows[name]["learning_rate"] <= 1e-2 and rows[name]["batch_size"] in (2, 4) for name in calls)
    values = {name: rows[name]["bits_per_byte"]["value"] for name in calls[1:]}
    assert read_json(folder / "experiments.json")["chosen"] == min(values, key=values.get)


def test_a_hopeless_trial_is_ended_early(recipe_path, tmp_path):
    recipe = load(recipe_path(space={"tune.learning_rate": {"choices": [1e-7, 1e-2]}}, trials=1))
    opened = sweep_study.open_sweep(recipe, tmp_path / "sweep", None)
    good = optuna.distributions.CategoricalDistribution([1e-7, 1e-2])
    for _ in range(sweep_study.PATIENT_TRIALS):  # as if five good ones had been there
        opened.study.add_trial(
            optuna.trial.create_trial(
                params={"tune.learning_rate": 1e-2}, distributions={"tune.learning_rate": good}, value=0.1,
                intermediate_values={1: 0.1, 2: 0.1}, user_attrs={"is_search": False},
            )
        )  # fmt: skip
    with sweep_study.locked(tmp_path / "sweep" / ".sweep.lock"):
        sweep.pipeline.run(recipe, RunDir(tmp_path / "sweep" / "shared"), only="data")
    trial, name, options, claim = sweep_study.claim_next(opened)
    with claim:
        sweep._experiment(opened, trial, name, options)
    ended = opened.study.get_trials()[-1]
    assert ended.state.name == "PRUNED"
    assert "worse than the median" in ended.user_attrs["note"]
    assert not (tmp_path / "sweep" / name / "tuning.json").exists()


def command(path, folder):
    return [sys.executable, "-m", "medtune.cli", "sweep", str(path), "--out", str(folder)]


def test_two_processes_share_a_sweep_and_run_nothing_twice(recipe_path, tmp_path):
    rates = [{"name": f"e{i}", "tune.learning_rate": 10.0**-i} for i in range(2, 7)]
    path, folder = recipe_path(experiments=rates), tmp_path / "sweep"
    workers = [
        subprocess.Popen(command(path, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    begun = [[name for name in (f"e{i}" for i in range(2, 7)) if f" {name}: tune.learning_rate" in p] for p in printed]
    assert sorted(begun[0] + begun[1]) == ["e2", "e3", "e4", "e5", "e6"]
    assert begun[0], "both worked"
    assert begun[1], "both worked"
    states = [trial.state.name for trial in sweep_study.open_sweep(load(path), folder, None).study.get_trials()]
    assert states == ["COMPLETE"] * 5
    assert len(read_json(folder / "experiments.json")["rows"]) == 6


def test_an_experiment_whose_process_was_killed_is_taken_up_again(recipe_path, tmp_path):
    path, folder = recipe_path(experiments=RATES), tmp_path / "sweep"
    process = subprocess.Popen(command(path, folder), stdout=-1, stderr=-1)
    deadline = time.monotonic() + 120
    while not (folder / "slow" / "checkpoints").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "experiments.json").exists()
    sweep.run(load(path), folder)
    trials = sweep_study.open_sweep(load(path), folder, None).study.get_trials()
    assert sorted((t.user_attrs["name"], t.state.name) for t in trials) == [
        ("fast", "COMPLETE"), ("slow", "COMPLETE"), ("slow", "FAIL"),
    ]  # fmt: skip
    assert [row["name"] for row in read_json(folder / "experiments.json")["rows"]] == ["untuned base", "slow", "fast"]


def test_mistakes_are_explained_before_anything_runs(recipe_path, tmp_path):
    with pytest.raises(RecipeError, match="nothing to try"):
        sweep.run(load(recipe_path()), tmp_path / "a")
    wrong = [{"name": "x", "tune.learning_rat": 1}]
    with pytest.raises(RecipeError, match=r"(?s)experiment x.*tune.learning_rat: unknown key.*learning_rate"):
        sweep.run(load(recipe_path(experiments=wrong)), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    for section, message in (
        ({"experiments": [{"tune.epochs": 1}]}, "needs a name"),
        ({"experiments": [{"name": "a"}, {"name": "a"}]}, "a name stands twice"),
        ({"space": {"tune.epochs": {"low": 2, "high": 1}}}, "must be below high"),
        ({"space": {"tune.epochs": {"low": 1, "high": 2, "choices": [1]}}}, "either choices, or low and high"),
        ({"space": {"tune.epochs": {"low": 0, "high": 2, "log": True}}}, "log needs low above 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            load(recipe_path(**section))


def test_a_folder_belongs_to_one_recipe(recipe_path, tmp_path):
    sweep_study.open_sweep(load(recipe_path(experiments=RATES)), tmp_path / "s", None)
    other = load(recipe_path(experiments=RATES), ["tune.max_steps=7"])
    with pytest.raises(RunDirError, match="a sweep of another recipe"):
        sweep_study.open_sweep(other, tmp_path / "s", None)
    opened = sweep_study.open_sweep(load(recipe_path(experiments=RATES)), tmp_path / "s", None)
    sweep_study.enqueue(opened)
    changed = [{"name": "slow", "tune.learning_rate": 5e-6}]
    again = sweep_study.open_sweep(load(recipe_path(experiments=changed)), tmp_path / "s", None)
    with pytest.raises(RunDirError, match="Give the changed one another name"):
        sweep_study.enqueue(again)
    assert json.dumps(again.named) == '{"slow": {"tune.learning_rate": 5e-06}}'
