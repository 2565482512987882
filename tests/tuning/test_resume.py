"""The tuning stage, killed and started again, ends with the weights of a run that was left alone, to the byte."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json
from medtune.tuning import stage

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from pathlib import Path
from medtune.recipe import Recipe
from medtune.run_dir import RunDir
from medtune.tuning import stage
stage.run(Recipe.model_validate_json(Path(sys.argv[1]).read_text()), RunDir(Path(sys.argv[2])))
"""
WORDS = ("asthma", "cough", "lung", "spray", "rest", "water", "heart", "doctor", "tablet", "fever", "salt", "bone")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The recipe's file, and a run's folder in which the data stage is done."""
    from medtune.data import stage as data_stage

    folder, draw = tmp_path_factory.mktemp("resume"), random.Random(0)
    with open(folder / "chat.jsonl", "w") as file:
        for i in range(60):
            question, answer = (" ".join(draw.choices(WORDS, k=k)) for k in (6, draw.randint(6, 25)))
            turns = [{"role": "user", "content": f"{question} {i}?"}, {"role": "assistant", "content": f"{answer}."}]
            file.write(json.dumps({"messages": turns}) + "\n")
    recipe = Recipe.model_validate({
        "name": "resume",
        "model": {"base": "scratch", "dtype": "float32", "device": "cpu", "attention": "documents",
                  "scratch": {"layers": 2, "width": 32, "heads": 2, "vocabulary": 400}},
        "data": {"sources": [{"layout": "chat", "path": str(folder / "chat.jsonl")}],
                 "split": {"validation": 0.2, "test": 0.1}, "max_length": 96},
        "tune": {"method": "lora", "lora": {"rank": 4, "dropout": 0.2, "targets": ["q_proj", "v_proj"]}, "epochs": 2,
                 "batch_size": 2, "accumulation": 2, "learning_rate": 5e-3, "checkpoint_steps": 3, "evaluations": 3,
                 "sample_answers": 1},
    })  # fmt: skip
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    data_stage.run(recipe, RunDir(folder / "data_only"))
    return folder


def start(prepared, run, recipe="recipe.json"):
    command = [sys.executable, "-c", PROGRAM, str(prepared / recipe), str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(prepared):
    """A run that nobody interrupted."""
    run = shutil.copytree(prepared / "data_only", prepared / "whole")
    finish(start(prepared, run))
    return run


def kill_after_checkpoints(prepared, run, count):
    """Start the stage and kill it -9 as soon as `count` checkpoints are whole."""
    process = start(prepared, run)
    deadline = time.monotonic() + 300
    while len(list(run.glob("checkpoints/*/complete.json"))) < count and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "tuning.json").exists()


def assert_same_outcome(run, whole):
    (weights,) = (file.name for file in (whole / "adapter").glob("*.safetensors"))
    assert (run / "adapter" / weights).read_bytes() == (whole / "adapter" / weights).read_bytes()
    first, again = read_json(whole / "tuning.json"), read_json(run / "tuning.json")
    # what a clock says may differ, nothing else
    for story in (first, again):
        for name in ("seconds", "wall_seconds", "tokens_per_second", "peak_memory_bytes"):
            del story[name]
        for entry in story["history"]:
            entry.pop("seconds", None)
    # a checkpoint logs what came before it, so the losses are over the same stretches
    assert again == first


def test_killed_run_ends_with_the_same_bytes(prepared, whole):
    run = shutil.copytree(prepared / "data_only", prepared / "killed")
    kill_after_checkpoints(prepared, run, 1)
    assert "going on from step" in finish(start(prepared, run))
    assert_same_outcome(run, whole)


def test_killed_run_under_muon_ends_with_the_same_bytes(prepared):
    recipe = json.loads((prepared / "recipe.json").read_text())
    recipe["tune"] |= {"method": "full", "optimizer": "muon", "learning_rate": 2e-3, "weight_decay": 0.1}
    muon = prepared / "muon"
    muon.mkdir()
    (muon / "recipe.json").write_text(json.dumps(recipe))
    whole, run = (shutil.copytree(prepared / "data_only", muon / name) for name in ("whole", "killed"))
    finish(start(muon, whole))
    kill_after_checkpoints(muon, run, 1)
    assert "going on from step" in finish(start(muon, run))
    assert_same_outcome(run, whole)


def test_checkpoint_cut_off_while_written_is_passed_over(prepared, whole):
    run = shutil.copytree(prepared / "data_only", prepared / "torn")
    kill_after_checkpoints(prepared, run, 2)
    newest = max(run.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    (newest / "complete.json").unlink(missing_ok=True)
    (newest / "trainer_state.json").write_text("{")
    assert f"going on from step {newest.name.rpartition('-')[2]}" not in finish(start(prepared, run))
    assert_same_outcome(run, whole)


def test_story_tells_the_base_and_the_best(whole):
    story = read_json(whole / "tuning.json")
    measured = {entry["step"]: entry["validation_loss"] for entry in story["history"] if "validation_loss" in entry}
    assert story["base_validation_loss"] == measured.pop(0)
    assert story["best_validation_loss"] == min(measured.values()) == measured[story["best_step"]]
    assert story["best_validation_loss"] < story["base_validation_loss"]
    assert story["steps"] == max(measured)
    assert {sample["step"] for sample in story["samples"]} == {0, *measured}


def test_killed_before_the_manifest_knows_nothing_is_tuned_again(prepared, whole):
    run = shutil.copytree(whole, prepared / "unrecorded")
    shutil.rmtree(run / "adapter")
    last = read_json(whole / "tuning.json")["steps"]
    assert f"going on from step {last}" in finish(start(prepared, run))
    assert_same_outcome(run, whole)
    stage.tidy(RunDir(run))
    assert not list(run.glob("*checkpoints*"))
    assert (run / "adapter").is_dir()


def test_tensorboard_keeps_the_curves_of_a_finished_run(prepared):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = shutil.copytree(prepared / "data_only", prepared / "tracked")
    recipe = Recipe.model_validate_json((prepared / "recipe.json").read_text())
    tracked = recipe.tune.model_copy(update={"report_to": ("tensorboard",)})
    (prepared / "tracked.json").write_text(recipe.model_copy(update={"tune": tracked}).model_dump_json())
    finish(start(prepared, run, recipe="tracked.json"))
    stage.tidy(RunDir(run))
    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    shown = [event.value for event in curves.Scalars("eval/loss")]
    story = read_json(run / "tuning.json")
    assert shown == pytest.approx([e["validation_loss"] for e in story["history"] if "validation_loss" in e], rel=1e-5)


def test_fingerprint_follows_what_changes_the_weights(prepared, whole):
    recipe = Recipe.model_validate_json((prepared / "recipe.json").read_text())
    first = stage.fingerprint(recipe, RunDir(whole))
    tracked = recipe.tune.model_copy(update={"report_to": ("mlflow",)})
    same = recipe.model_copy(update={"name": "other", "tune": tracked})
    assert stage.fingerprint(same, RunDir(whole)) == first
    for changes in ({"seed": 1}, {"tune": recipe.tune.model_copy(update={"epochs": 3})}):
        assert stage.fingerprint(recipe.model_copy(update=changes), RunDir(whole)) != first
