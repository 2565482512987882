"""The command line as a user meets it: fast help, one paragraph per mistake, exit codes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtune.run_dir import RunDir

ROOT = Path(__file__).parents[1]
COMMANDS = ("check", "run", "data", "tune", "eval", "rehearse", "runs")
BROKEN = (
    "name: x\nmodel: {base: b, quantisation: nf4}\ndata: {sources: [{layout: text, path: p}]}\ntune: {epochs: -1}\n"
)


def medtune(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "medtune.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def processor_seconds(*arguments: str) -> float:
    """Time in the processor, which another process on the machine does not lengthen much."""
    before = os.times()
    medtune(*arguments)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_lists_every_command():
    shown = medtune("--help").stdout
    assert all(re.search(rf"│ {command} ", shown) for command in COMMANDS)


def test_help_and_a_broken_recipe_answer_at_once(tmp_path):
    (tmp_path / "r.yaml").write_text(BROKEN)
    assert min(processor_seconds("--help") for _ in range(3)) < 0.5
    assert min(processor_seconds("check", str(tmp_path / "r.yaml")) for _ in range(3)) < 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["check", "{broken}"], ["runs", "{empty}"], ["run", "nothing.yaml"]])
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    (tmp_path / "r.yaml").write_text(BROKEN)
    (tmp_path / "empty").mkdir()
    arguments = [a.format(broken=tmp_path / "r.yaml", empty=tmp_path / "empty") for a in arguments]
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print({'torch', 'transformers', 'numpy', 'sklearn'} & set(sys.modules)))\n"
        f"sys.argv = ['medtune', *{arguments!r}]\n"
        "from medtune.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout


def test_mistakes_come_in_one_paragraph(tmp_path):
    (tmp_path / "r.yaml").write_text(BROKEN)
    done = medtune("run", str(tmp_path / "r.yaml"), "tune.lora.rank=0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "model.quantisation: unknown key. Did you mean quantization?" in done.stderr
    assert "tune.lora.rank: must be >= 1 (got 0)" in done.stderr
    assert "tune.epochs: must be > 0.0 (got -1)" in done.stderr


def test_unknown_command_and_missing_recipe_are_usage_errors():
    assert medtune("trian").returncode == 2
    assert medtune("run").returncode == 2
    assert "a recipe is missing" in medtune("data").stderr


def test_version_is_the_packages():
    from importlib import metadata

    assert medtune("--version").stdout.strip() == metadata.version("medtune")


def test_layouts_are_listed_with_their_columns():
    from medtune.data.convert import LAYOUTS

    shown = medtune("data", "--layouts").stdout
    for name, layout in LAYOUTS.items():
        assert f"\n{name}\n" in "\n" + shown
        assert ", ".join(layout.columns) in shown


def test_runs_shows_how_far_each_run_has_come(tmp_path):
    recipe = '{"model": {"base": "b", "quantization": "nf4"}, "tune": {"method": "lora"}}'
    for name in ("first", "second"):
        run_dir = RunDir(tmp_path / "runs" / name)
        run_dir.finish("data", "f")
        (run_dir.path / "recipe.json").write_text(recipe)
    for age, name in enumerate(("damaged", "first", "second")):
        path = tmp_path / "runs" / name / "manifest.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.read_text() if path.exists() else "{")
        os.utime(path, (1e9 + age, 1e9 + age))
    shown = medtune("runs", cwd=tmp_path).stdout
    assert re.findall(r"│ (first|second) +│ b, lora on nf4 +│ before tune +│ - ", shown) == ["first", "second"]
    assert re.search(r"damaged +│ +│ damaged", shown)
    assert shown.index("damaged") < shown.index("first"), "the newest stands last, whatever became of it"
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = medtune("run", "recipes/starter.yaml", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "not a run's" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interruption_says_that_the_command_goes_on(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer\n" + "".join(f"what is {i}?,it is {i} and {i} and {i}\n" for i in range(100_000)))
    (tmp_path / "r.yaml").write_text(
        f"name: x\nmodel: {{base: scratch}}\ndata: {{sources: [{{layout: question_answer, path: {rows}}}]}}"
    )
    command = [sys.executable, "-m", "medtune.cli", "data", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    deadline = time.monotonic() + 20
    while not (tmp_path / "run" / "data").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
