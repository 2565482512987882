"""The starter recipe, shrunk, from data to report: once, again (nothing is left to do), and after being killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtune.run_dir import RunDir, read_json

ROOT = Path(__file__).parents[1]
SMALL = (
    "model.dtype=float32",  # not `auto`: two runs may time the machine differently
    "model.attention=documents",
    "data.sources.0.limit=60",
    "data.max_length=128",
    "data.max_truncated=1",
    "data.split={validation: 0.2, test: 0.2, phrasings: 0.2}",
    "tune.max_steps=24",
    "tune.batch_size=4",
    "tune.evaluations=2",
    "tune.checkpoint_steps=3",
    "tune.sample_answers=1",
    "assistant.knowledge.encoder=none",
    "evaluate.systems=[random, nearest, base, tuned, retrieval, assistant]",
    "evaluate.questions=12",
    "evaluate.max_new_tokens=12",
    "evaluate.latency_questions=2",
    "evaluate.resamples=200",
)
pytestmark = pytest.mark.slow


def command(folder: Path, *more: str, stage: str = "run") -> list[str]:
    return [sys.executable, "-m", "medtune.cli", stage, "recipes/starter.yaml", "--out", str(folder), *SMALL, *more]


def medtune(folder: Path, *more: str, stage: str = "run") -> str:
    done = subprocess.run(command(folder, *more, stage=stage), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, uninterrupted: its folder and what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, medtune(folder)


def test_one_command_goes_from_data_to_report(finished):
    folder, printed = finished
    summary = read_json(folder / "evaluation" / "summary.json")
    assert re.sub(r"\s+", " ", summary["verdict"]["sentence"]) in re.sub(r"\s+", " ", printed)
    assert set(summary["systems"]) == {"random", "nearest", "base", "tuned", "retrieval", "assistant"}
    assert set(summary["seen"]["systems"]) == set(summary["systems"])
    assert summary["seen"]["test"]["questions"] == summary["test"]["questions"] == 12
    assert re.sub(r"\s+", " ", summary["seen"]["sentence"]) in re.sub(r"\s+", " ", printed)
    assert str(folder / "report.html") in printed
    report = (folder / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", report), "the report must open offline"


def test_manifest_says_what_was_run(finished):
    manifest = RunDir(finished[0]).manifest()
    assert list(manifest["stages"]) == ["data", "tune", "knowledge", "evaluate"]
    assert all(facts["seconds"] >= 0 for facts in manifest["stages"].values())
    assert manifest["licences"]["medtune"] == "Apache-2.0"
    assert "starter" in manifest["licences"]["data"]
    assert manifest["seeds"] == {"seed": 0, "data.split.seed": 0}
    assert manifest["chat_template"]["hash"]
    assert manifest["environment"]["versions"]["torch"]


def test_second_time_nothing_is_left_to_do(finished):
    folder, _ = finished
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name in ("train.jsonl", "tuning.json")
    }
    printed = medtune(folder)
    assert [line for line in printed.splitlines() if line.endswith(": up to date")] == [
        "data: up to date",
        "tune: up to date",
        "knowledge: up to date",
        "evaluate: up to date",
    ]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_changed_option_runs_only_what_depends_on_it(finished):
    folder, _ = finished
    printed = medtune(folder, "evaluate.questions=10")
    assert "data: up to date" in printed
    assert "tune: up to date" in printed
    assert "changed since: evaluate.questions" in printed
    assert read_json(folder / "evaluation" / "summary.json")["test"]["questions"] == 10


def test_stage_alone_refuses_to_build_on_an_outdated_one(finished):
    folder, _ = finished
    done = subprocess.run(command(folder, "seed=7", stage="eval"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the tune stage, which evaluate builds on, is not up to date" in done.stderr
    assert read_json(folder / "recipe.json")["seed"] == 0


def test_killed_while_tuning_the_same_command_goes_on_to_the_same_weights(finished, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen(command(folder), cwd=ROOT, stdout=-1, stderr=-1)
    wait_for(lambda: len(list(folder.glob("checkpoints/checkpoint-*/complete.json"))) > 0 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "tune" not in RunDir(folder).manifest()["stages"], "it ended before it could be killed"
    printed = medtune(folder)
    assert "data: up to date" in printed
    assert re.search(r"going on from step \d+", printed)
    whole, _ = finished
    weights = "adapter_model.safetensors"
    assert (folder / "adapter" / weights).read_bytes() == (whole / "adapter" / weights).read_bytes()
    losses = [read_json(run / "tuning.json")["best_validation_loss"] for run in (folder, whole)]
    assert losses[0] == losses[1]


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_two_processes_do_not_share_a_folder(finished):
    folder, _ = finished
    with RunDir(folder).lock():
        done = subprocess.run(command(folder), cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert "another medtune process" in done.stderr
