"""`medtune serve` and `medtune keys` as processes: what they print, refuse, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from medtune import recipe_file
from medtune.errors import PrerequisiteError, RunDirError
from medtune.run_dir import RunDir, write_json
from medtune.serving import server
from medtune.serving.server import Options

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
# The command with a scripted assistant in place of a run's: what a run must hold is tested with the assistant.
SERVE = """
import sys
from pathlib import Path
from medtune.cli import app
from medtune.serving import server
from medtune.serving.scripted import ScriptedAssistant
server.open_assistant = lambda recipe, home, engine: ScriptedAssistant()
sys.argv = ["medtune", "serve", *sys.argv[1:]]
app(standalone_mode=False)
"""


def medtune(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "medtune.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder that looks like a run's."""
    folder = tmp_path / "anaemia"
    folder.mkdir()
    recipe = ROOT / "recipes" / "starter.yaml"
    write_json(folder / "recipe.json", recipe_file.load(recipe).model_dump(mode="json"))
    write_json(folder / "manifest.json", {"stages": {}})
    return folder


def test_an_open_address_needs_keys(tmp_path):
    with pytest.raises(PrerequisiteError, match="medtune keys create"):
        server.run({}, None, Options(host="0.0.0.0"))
    with pytest.raises(PrerequisiteError, match="no valid key"):
        server.run({}, None, Options(host="0.0.0.0", keys=tmp_path / "keys.json"))


def test_a_taken_port_is_explained():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PrerequisiteError, match=rf"127.0.0.1:{port} cannot be listened on"):
            server.run({}, None, Options(port=port))


def test_an_unfinished_run_is_refused(run):
    with pytest.raises(RunDirError, match="Run: medtune"):
        server.run({"a": (recipe_file.load(run / "recipe.json"), RunDir(run))}, None, Options(port=0))


def test_two_runs_of_one_name_are_refused(run):
    done = medtune("serve", str(run), str(run))
    assert done.returncode == 2
    assert "NAME=RUN" in re.sub(r"\s+", " ", done.stderr)


def test_a_run_whose_hashes_differ_is_refused(run, monkeypatch):
    def refuse(*_):
        raise RunDirError("the guards have hash a, but the run was made with b")

    monkeypatch.setattr(server, "open_assistant", refuse)
    with pytest.raises(RunDirError, match="hash"):
        server.run({"a": (recipe_file.load(run / "recipe.json"), RunDir(run))}, None, Options(port=0))


def test_a_served_run_keeps_its_own_number_of_tokens(run, monkeypatch):
    monkeypatch.setattr(server, "open_assistant", lambda *_: None)
    recipe = recipe_file.load(run / "recipe.json")
    recipe = recipe.model_copy(update={"assistant": recipe.assistant.model_copy(update={"max_new_tokens": 33})})
    assert server.open_run("a", recipe, RunDir(run), None).max_new_tokens == 33


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_serves_and_ends_cleanly(run, tmp_path, number):
    arguments = [f"first={run}", str(run), "--port", "0", "--store", str(tmp_path / "chats.db")]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        lines = []
        while not lines or "Ready" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        shown = "".join(lines)
        root = re.search(r"Page\s+(http://127.0.0.1:\d+)/", shown).group(1)
        assert re.search(r"Models\s+first, anaemia", shown)
        assert re.search(r"Stored\s+\S+chats.db, 30 days", shown)
        with httpx.Client(base_url=root, timeout=30) as http:
            body = {"model": "first", "messages": [{"role": "user", "content": "I am Jane, jane@example.org"}]}
            assert http.post("/v1/chat/completions", json=body).json()["medtune"]["is_stored"] is True
            assert http.get("/").status_code == 200
            assert http.get("/es/").status_code == 200
            assert http.get("/healthz", headers={"host": "evil.example"}).status_code == 400
        process.send_signal(number)
        assert process.wait(60) == 0
        assert "Stopped." in process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert b"jane@example.org" not in (tmp_path / "chats.db").read_bytes()


def test_keys_by_command(tmp_path):
    made = medtune("keys", "create", "clinic", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    assert re.fullmatch(r"mt_[0-9a-f]{8}_\S{43}", text)
    id = text.split("_")[1]
    listed = medtune("keys", "list", cwd=tmp_path).stdout
    assert id in listed
    assert "clinic" in listed
    assert text not in listed
    assert medtune("keys", "revoke", id, cwd=tmp_path).returncode == 0
    assert time.strftime("%Y-") in medtune("keys", "list", cwd=tmp_path).stdout.split(id)[1].split("│")[-2]
    wrong = medtune("keys", "revoke", "nope", cwd=tmp_path)
    assert (wrong.returncode, "no key 'nope'" in wrong.stderr) == (2, True)


def test_the_commands_are_listed():
    shown = medtune("--help").stdout
    assert re.search(r"│ serve ", shown)
    assert re.search(r"│ keys ", shown)
