"""Which stages run and which do not, with stages that only count their calls."""

import contextlib
import sys
import types

import pytest

from medtune import pipeline
from medtune.errors import ModelError, PrerequisiteError, RunDirError
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json

RECIPE = Recipe.model_validate(
    {"name": "x", "model": {"base": "b"}, "data": {"sources": [{"layout": "text", "path": "p"}]}}
)


@pytest.fixture
def calls(monkeypatch):
    """Four stages that write one file each; the names of those that ran. `calls.broken` names one that fails."""
    ran = Calls()
    for name, section in (("data", "data"), ("tune", "tune"), ("knowledge", "assistant"), ("evaluate", "evaluate")):
        module = types.ModuleType(f"fake_{name}")
        module.fingerprint = lambda recipe, *_, section=section: getattr(recipe, section).model_dump_json()
        module.run = lambda _, run_dir, name=name: ran.add(name, run_dir)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(pipeline.STAGES, name, pipeline.Stage(module.__name__, (f"{name}.txt",)))
    return ran


class Calls(list):
    broken = ""

    def add(self, name, run_dir):
        self.append(name)
        (run_dir.path / f"{name}.txt").write_text(name)
        if name == self.broken:
            raise KeyboardInterrupt

    def take(self):
        taken = list(self)
        self.clear()
        return taken


def other(section, **changes):
    return RECIPE.model_copy(update={section: getattr(RECIPE, section).model_copy(update=changes)})


def test_a_missing_embedded_model_is_told_before_anything_runs(calls, tmp_path, monkeypatch):
    from medtune import check
    from medtune.models import loading

    monkeypatch.setattr(loading, "STARTER", tmp_path / "nowhere")
    recipe, run_dir = other("model", base="starter"), RunDir(tmp_path / "run")
    for only in (None, "tune", "evaluate"):
        with pytest.raises(ModelError, match="missing from this installation"):
            pipeline.run(recipe, run_dir, only)
    with pytest.raises(ModelError, match="missing from this installation"):
        check.run(recipe)
    assert calls.take() == []
    assert not run_dir.path.exists()
    pipeline.run(recipe, run_dir, "data")
    assert calls.take() == ["data"], "the data alone need no model"


def test_everything_runs_once(calls, tmp_path):
    pipeline.run(RECIPE, RunDir(tmp_path / "run"))
    assert calls.take() == ["data", "tune", "knowledge", "evaluate"]
    pipeline.run(RECIPE, RunDir(tmp_path / "run"))
    assert calls.take() == []


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("evaluate", {"questions": 3}, ["evaluate"]),
        ("assistant", {"support": 0.7}, ["knowledge", "evaluate"]),
        ("tune", {"epochs": 7}, ["tune", "knowledge", "evaluate"]),
        ("data", {"max_length": 99}, ["data", "tune", "knowledge", "evaluate"]),
    ],
)
def test_changed_option_runs_its_stage_and_those_after_it(calls, tmp_path, capsys, section, changes, expected):
    run_dir = RunDir(tmp_path / "run")
    pipeline.run(RECIPE, run_dir)
    calls.take()
    pipeline.run(other(section, **changes), run_dir)
    assert calls.take() == expected
    assert f"changed since: {section}.{next(iter(changes))}" in capsys.readouterr().out


def test_lost_artifact_is_made_again(calls, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    pipeline.run(RECIPE, run_dir)
    calls.take()
    (run_dir.path / "tune.txt").unlink()
    pipeline.run(RECIPE, run_dir)
    assert calls.take() == ["tune", "knowledge", "evaluate"]


def test_stage_cut_off_with_other_options_is_not_taken_for_done_with_the_old_ones(calls, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    pipeline.run(RECIPE, run_dir)
    calls.take()
    calls.broken = "tune"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(other("tune", epochs=7), run_dir)
    calls.broken = ""
    calls.take()
    pipeline.run(RECIPE, run_dir)
    assert calls.take() == ["tune", "knowledge", "evaluate"]


def test_one_stage_alone_needs_those_before_it(calls, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    pipeline.run(RECIPE, run_dir, only="data")
    assert calls.take() == ["data"]
    with pytest.raises(RunDirError, match="the tune stage, which evaluate builds on"):
        pipeline.run(other("tune", epochs=7), run_dir, only="evaluate")
    assert calls.take() == []
    assert read_json(run_dir.path / "recipe.json")["tune"]["epochs"] == 3
    pipeline.run(RECIPE, run_dir, only="tune")
    assert calls.take() == ["tune"]


def test_folder_of_something_else_is_left_alone(calls, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunDirError, match="not a run's"):
        pipeline.run(RECIPE, RunDir(tmp_path))
    assert calls.take() == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_of_several_processes_only_the_first_keeps_the_books(calls, tmp_path, monkeypatch):
    run_dir = RunDir(tmp_path / "run")
    pipeline.run(RECIPE, run_dir, only="data")
    calls.take()
    manifest = run_dir.manifest()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PrerequisiteError, match="Several processes can only tune"):
        pipeline.run(RECIPE, run_dir)
    monkeypatch.setenv("RANK", "1")
    with run_dir.lock():
        pipeline.run(RECIPE, run_dir, only="tune")
    assert calls.take() == ["tune"]
    assert run_dir.manifest() == manifest


def test_of_several_processes_none_tunes_what_is_up_to_date_or_has_no_data(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        run_dir = RunDir(tmp_path / "empty")
        with pytest.raises(RunDirError) if rank == "0" else contextlib.nullcontext():
            pipeline.run(RECIPE, run_dir, only="tune")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run_dir = RunDir(tmp_path / "done")
    pipeline.run(RECIPE, run_dir)
    calls.take()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        pipeline.run(RECIPE, run_dir, only="tune")
    assert calls.take() == []


def test_licences_name_code_base_and_data(calls, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    (run_dir.path / "data").mkdir(parents=True)
    (run_dir.path / "manifest.json").write_text('{"stages": {}}')
    card = '{"sources": [{"path": "p", "licences": {"CC BY 4.0": 3}}]}'
    (run_dir.data / "data_card.json").write_text(card)
    pipeline.run(other("model", base="microsoft/DialoGPT-large"), run_dir)
    assert run_dir.manifest()["licences"] == {"medtune": "Apache-2.0", "base": "MIT", "data": {"p": ["CC BY 4.0"]}}
    assert calls.take() == ["data", "tune", "knowledge", "evaluate"]
