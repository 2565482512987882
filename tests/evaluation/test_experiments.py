"""Experiments side by side: only shared questions count, the baseline comes first, every figure is in the CSV."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from medtune.errors import EvaluationError, RunDirError
from medtune.evaluation import compare, experiments
from medtune.evaluation.experiments import Experiment
from medtune.evaluation.statistics import Bootstrap
from medtune.recipe_file import validate
from medtune.run_dir import RunDir, write_json, write_lines
from medtune.types import Completion

BOOTSTRAP = Bootstrap(300, 0)
RECIPE = validate(
    {"name": "r", "model": {"base": "b"}, "data": {"sources": [{"layout": "chat", "path": "a"}]},
     "tune": {"batch_size": 4, "accumulation": 2, "learning_rate": 1e-4}, "evaluate": {"resamples": 200}}, "r"
)  # fmt: skip
TUNING = {
    "history": [{"step": step, "loss": 5 - step / 10} for step in range(20)],
    "best_validation_loss": 3.5, "parameters_trainable": 1000, "peak_memory_bytes": 2e9, "seconds": 90.0,
}  # fmt: skip


@pytest.fixture
def scored(record):
    """Makes records of a system: scored(score, questions, system)."""

    def make(score, questions=range(40), system="tuned"):
        noise = np.random.default_rng(0).normal(0, 0.02, 100)
        return [record(i, score + noise[i], f"g{i}", system=system) for i in questions]

    return make


def test_the_baseline_comes_first_and_improvements_are_over_it(scored):
    baseline = Experiment("untuned base", scored(0.2))
    result = experiments.build([Experiment("lora", scored(0.3), RECIPE, TUNING)], baseline, BOOTSTRAP)
    first, second = result["rows"]
    assert (first["name"], first["improvement"], first["learning_rate"]) == ("untuned base", None, None)
    assert second["improvement"]["value"] == pytest.approx(0.1)
    assert second["improvement"]["direction"] == "helped"
    assert (second["batch_size"], second["accumulation"], second["effective_batch"]) == (4, 2, 8)
    assert (second["learning_rate"], second["validation_loss"], second["minutes"]) == (1e-4, 3.5, 1.5)
    assert second["training_loss"] == pytest.approx(3.15), "the last tenth of the logged losses"


def test_only_shared_questions_count(scored):
    one, two = Experiment("a", scored(0.2, range(30)), RECIPE), Experiment("b", scored(0.4, range(20, 40)), RECIPE)
    result = experiments.build([one, two], None, BOOTSTRAP)
    assert result["questions"] == 10
    assert result["pairs"][0]["rouge_l"]["questions"] == 10
    assert result["pairs"][0]["rouge_l"]["value"] == pytest.approx(0.2)
    other = [dataclasses.replace(r, reference="another answer") for r in scored(0.4)]
    with pytest.raises(EvaluationError, match="no test question in common"):
        experiments.build([one, Experiment("c", other, RECIPE)], None, BOOTSTRAP)


def test_many_experiments_are_compared_with_the_best_alone(scored):
    rows = [Experiment(f"e{i}", scored(0.2 + i / 50), RECIPE) for i in range(8)]
    pairs = experiments.build(rows, None, BOOTSTRAP)["pairs"]
    assert len(pairs) == 7
    assert all("e7" in (pair["first"], pair["second"]) for pair in pairs)


def test_the_csv_has_every_figure(scored):
    baseline = Experiment("untuned base", scored(0.2))
    result = experiments.build([Experiment("lora", scored(0.3), RECIPE, TUNING, "note")], baseline, BOOTSTRAP)
    base, lora = csv.DictReader(io.StringIO(experiments.as_csv(result)))
    assert base["improvement"] == base["learning_rate"] == ""
    assert float(lora["improvement"]) == pytest.approx(0.1)
    assert float(lora["rouge_l_low"]) < float(lora["rouge_l"]) < float(lora["rouge_l_high"])
    assert {column[1] for column in experiments.COLUMNS} - {"name"} <= set(lora)


def test_names_are_data_on_the_page(scored):
    evil = "<script>alert(1)</script>"
    result = experiments.build(
        [Experiment(evil, scored(0.3), RECIPE, TUNING, evil)], Experiment("base", scored(0.2)), BOOTSTRAP
    )
    html = experiments.as_html(result, "t", "lead", "The winner")
    assert evil not in html
    assert "The winner" in html
    assert "svg" in html


def a_run(folder, base, tuned):
    write_json(folder / "recipe.json", RECIPE.model_dump(mode="json"))
    write_json(folder / "tuning.json", TUNING)
    rows = [dataclasses.asdict(record) for record in (*base, *tuned)]
    write_lines(folder / "evaluation" / "records.jsonl", rows)
    return RECIPE, RunDir(folder)


def test_two_runs_are_compared_pair_by_pair(scored, tmp_path, capsys):
    base = scored(0.2, system="base")
    runs = [a_run(tmp_path / name, base, scored(score)) for name, score in (("lora", 0.3), ("prompt", 0.25))]
    result = compare.run(runs, tmp_path / "out")
    assert [row["name"] for row in result["rows"]] == ["untuned base", "lora", "prompt"]
    assert "lora → prompt: ROUGE-L -0.050 (-0.050 to -0.050" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["questions"] == 40
    assert len((tmp_path / "out" / "comparison.csv").read_text().splitlines()) == 4
    assert "lora → prompt" in (tmp_path / "out" / "comparison.html").read_text()


def test_runs_of_one_name_are_told_apart(scored, tmp_path):
    runs = [a_run(tmp_path / name / "r", scored(0.2, system="base"), scored(0.3)) for name in "ab"]
    names = [row["name"] for row in compare.run(runs, tmp_path)["rows"]]
    assert names == ["untuned base", str(tmp_path / "a" / "r"), str(tmp_path / "b" / "r")]


def test_a_run_that_was_not_evaluated_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="Evaluate it first"):
        experiments.of_run(RunDir(tmp_path), RECIPE)


def test_a_system_without_a_likelihood_has_no_perplexity(record):
    rows = [record(i, 0.2, f"g{i}", likelihood=None, completion=Completion("one")) for i in range(40)]
    row = experiments.build([Experiment("a", rows, RECIPE)], None, BOOTSTRAP)["rows"][0]
    assert row["perplexity"] is None
