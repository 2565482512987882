"""From a run's folder to its assistant, with a real (tiny, random) model, the real guards and the starter library."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from medtune.assistant import guards, open, terminal
from medtune.cli import app
from medtune.errors import RunDirError
from medtune.knowledge import stage as knowledge
from medtune.models import chat_template, loading, scratch
from medtune.models.scripted import ScriptedEngine
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_lines, write_json, write_lines
from medtune.types import Conversation, Message

QUESTION = "How is gout treated?"
TOPICS = ("Gout", "Asthma in adults", "Shingles")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunDir]:
    """A run as its stages leave it, on three topics of the starter library."""
    home = tmp_path_factory.mktemp("assistant")
    library = [row for row in read_lines(loading.STARTER.parent / "library.jsonl") if row["topic"] in TOPICS]
    write_lines(home / "library.jsonl", library)
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"base": "scratch", "dtype": "float32", "attention": "eager",
                      "scratch": {"layers": 1, "width": 16, "heads": 1, "vocabulary": 320}},
            "data": {"sources": [{"layout": "library", "path": "starter"}], "max_length": 128},
            "tune": {"method": "full"},
            "assistant": {"country": "US", "knowledge": {"encoder": "none", "sources": [
                {"path": str(home / "library.jsonl"), "layout": "library", "licence": "CC0"}]}},
        }
    )  # fmt: skip
    run_dir = RunDir(home / "run")
    scratch.build(recipe.model.scratch, [row["about"] for row in library], run_dir.base, 0)
    shutil.copytree(run_dir.base, run_dir.adapter)
    tokenizer = loading.load_tokenizer(str(run_dir.base))
    template = chat_template.choose(recipe.model, tokenizer, "causal", loading.load_config(str(run_dir.base)))
    run_dir.update_manifest(chat_template=chat_template.to_json(template))
    run_dir.finish("tune", "fingerprint")
    knowledge.run(recipe, run_dir)
    run_dir.update_manifest(guards=guards.load_guards(recipe.assistant.guards, None).hash)
    write_json(run_dir.path / "recipe.json", recipe.model_dump(mode="json"))
    return recipe, run_dir


@pytest.fixture
def copy(finished: tuple[Recipe, RunDir], tmp_path: Path) -> RunDir:
    """The finished run once more, to be damaged."""
    return RunDir(Path(shutil.copytree(finished[1].path, tmp_path / "run")))


def ask(question: str) -> Sequence[Message]:
    return [Message("user", question)]


def test_a_run_answers_from_its_library(finished: tuple[Recipe, RunDir]) -> None:
    assistant = open.open_assistant(*finished)
    reply = assistant.reply(ask(QUESTION))
    assert not reply.is_error
    assert {source.title for source in reply.sources} == {"Gout"}
    assert {"in_short", "what_to_do", "seek_care"} <= {section.name for section in reply.sections}
    assert assistant.reply(ask("Who won the world cup in 1998?")).urgency == "not_medical"
    alarm = assistant.reply(ask("My father's face droops on one side and he cannot speak, since ten minutes"))
    assert alarm.urgency == "emergency"
    assert alarm.text.startswith("Get help now")
    assert "911" in alarm.text
    again = open.open_assistant(*finished)
    assert again.hash == assistant.hash


def test_another_engine_leaves_the_tuned_model_unread(finished: tuple[Recipe, RunDir], copy: RunDir) -> None:
    shutil.rmtree(copy.adapter)
    engine = ScriptedEngine("Gout comes from uric acid crystals.")
    assert open.open_assistant(finished[0], copy, engine).reply(ask(QUESTION)).sources
    assert len(engine.asked) == 1


@pytest.mark.parametrize("entry", ["chat_template", "knowledge", "guards"])
def test_what_is_not_the_runs_own_is_refused(finished: tuple[Recipe, RunDir], copy: RunDir, entry: str) -> None:
    stored = copy.manifest()[entry]
    copy.update_manifest(**{entry: {**stored, "hash": "another"} if isinstance(stored, dict) else "another"})
    with pytest.raises(RunDirError, match=r"the hash of the .*another.*medtune run"):
        open.open_assistant(finished[0], copy)


def test_an_unfinished_run_is_explained(finished: tuple[Recipe, RunDir], copy: RunDir, tmp_path: Path) -> None:
    copy.update_manifest(chat_template=None)
    with pytest.raises(RunDirError, match="nothing was tuned here"):
        open.open_assistant(finished[0], copy)
    with pytest.raises(RunDirError, match=r"no run here.*medtune run"):
        open.open_assistant(finished[0], RunDir(tmp_path / "nowhere"))


def test_rare_words_of_the_library_weigh_more(finished: tuple[Recipe, RunDir]) -> None:
    index = knowledge.open_run(*finished)
    assert index is not None
    weight = open.rarity(index)
    assert weight("doctor") < weight("crystal") <= 1.0 == weight("neverseen")


def test_the_evaluation_can_ask_it(finished: tuple[Recipe, RunDir]) -> None:
    asked = [Conversation("a", (Message("user", QUESTION), Message("assistant", "Rest.")))]
    found = {name: (mark, list(answers(asked, 8))) for name, mark, answers in measured(finished)}
    assert set(found) == {"retrieval", "assistant"}
    for _, ((number, completion),) in found.values():
        assert number == 0
        assert completion.finish_reason == "stop"
    assert "not a doctor" not in found["assistant"][1][0][1].text
    assert "gout" in found["retrieval"][1][0][1].text.lower()


def measured(finished: tuple[Recipe, RunDir]) -> list[tuple[str, str, open.Answers]]:
    return list(open.measured(*finished, ["retrieval", "assistant"]))


def test_chat_once_as_json(finished: tuple[Recipe, RunDir]) -> None:
    done = CliRunner().invoke(app, ["chat", str(finished[1].path), "--once", QUESTION, "--json"])
    assert done.exit_code == 0, done.output
    reply = json.loads(done.stdout)
    assert reply["urgency"] in ("routine", "urgent")
    assert reply["sources"][0]["title"] == "Gout"
    assert reply["disclaimer"] in reply["text"]
    assert [verdict["guard"] for verdict in reply["verdicts"]] == [
        "emergency",
        "crisis",
        "scope",
        "injection",
        "advice",
    ]


@pytest.mark.parametrize("more", [["--json"], ["--engine", "http://localhost:1"]])
def test_options_that_belong_together(finished: tuple[Recipe, RunDir], more: list[str]) -> None:
    done = CliRunner().invoke(app, ["chat", str(finished[1].path), *more])
    assert done.exit_code == 2
    assert "Error" in done.output


def test_a_conversation_in_the_terminal(finished: tuple[Recipe, RunDir]) -> None:
    assistant = open.open_assistant(*finished)
    lines = iter(
        ["/why", QUESTION, "/why", "is it contagious?", "/new", "/help", QUESTION, "/nonsense", "/quit", "never"]
    )
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    terminal.chat(assistant, "tiny", console, lambda _: next(lines))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Nothing was asked yet." in shown
    assert shown.count("I am a computer program") == 2, "once in each conversation"
    assert "not reviewed by a clinician" in shown
    assert "http" in shown
    assert "Verdicts" in shown
    assert "Sentences" in shown
    assert "routine" in shown or "urgent" in shown
    assert next(lines) == "never"


def test_the_end_of_input_ends_the_chat(finished: tuple[Recipe, RunDir]) -> None:
    def closed(_: str) -> str:
        raise EOFError

    console = Console(file=io.StringIO())
    terminal.chat(open.open_assistant(*finished), "tiny", console, closed)


def test_words_are_wrapped_across_pieces(finished: tuple[Recipe, RunDir]) -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    terminal.show(open.open_assistant(*finished).stream(ask(QUESTION)), console)
    lines = console.file.getvalue().split("Sources")[0].splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 61
    assert "In short: Gout" in lines
