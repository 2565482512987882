"""The stage and the commands, from a folder of documents to figures."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medtune.commands.knowledge import app
from medtune.errors import DataError, RunDirError
from medtune.knowledge import stage
from medtune.recipe import Recipe
from medtune.run_dir import RunDir

TEXTS = {
    "gout": "Gout is treated with rest and ice.",
    "asthma": "Asthma is treated with inhalers.",
    "flu": "Flu passes.",
}


@pytest.fixture
def documents(tmp_path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def recipe(documents: Path, **knowledge) -> Recipe:
    source = {"layout": "documents", "path": str(documents), "licence": "CC0"}
    return Recipe.model_validate(
        {
            "name": "test",
            "model": {"base": "starter"},
            "data": {"sources": [{"layout": "library", "path": "starter"}]},
            "assistant": {"knowledge": {"sources": [source], "encoder": "none", **knowledge}},
        }
    )


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_stage_writes_index_and_manifest(tmp_path, documents):
    run_dir = RunDir(tmp_path / "run")
    stage.run(recipe(documents), run_dir)
    entry = run_dir.manifest()["knowledge"]
    assert entry["passages"] == 3
    assert entry["encoder"] is None
    assert entry["licences"] == {"CC0": 3}
    index = stage.open_run(recipe(documents), run_dir)
    assert index is not None
    assert index.manifest["hash"] == entry["hash"]


def test_the_fingerprint_follows_options_and_files(tmp_path, documents):
    run_dir = RunDir(tmp_path / "run")
    first = stage.fingerprint(recipe(documents), run_dir)
    assert stage.fingerprint(recipe(documents), run_dir) == first
    assert stage.fingerprint(recipe(documents, passages=7), run_dir) == first  # asked at run time, not in the index
    assert stage.fingerprint(recipe(documents, encoder="auto"), run_dir) != first
    (documents / "gout.txt").write_text("Gout is treated with rest.")
    assert stage.fingerprint(recipe(documents), run_dir) != first


def test_a_run_without_sources_has_no_index(tmp_path, documents):
    run_dir = RunDir(tmp_path / "run")
    stage.run(recipe(documents, sources=[]), run_dir)
    assert run_dir.manifest()["knowledge"] is None
    assert stage.open_run(recipe(documents, sources=[]), run_dir) is None


def test_a_run_whose_stage_is_missing_says_how_to_build_it(tmp_path, documents):
    with pytest.raises(RunDirError, match="medtune knowledge build"):
        stage.open_run(recipe(documents), RunDir(tmp_path / "run"))


def test_build_search_and_evaluate(tmp_path, documents):
    index = tmp_path / "index"
    shown = call("build", "--source", f"documents:{documents}", "--out", index, "--encoder", "none")
    assert "3 passages, found by words alone" in shown
    assert "asthma" in call("search", index, "inhaler for asthma", "--encoder", "none")
    hits = json.loads(call("search", index, "inhaler for asthma", "--json", "--k", "1", "--encoder", "none"))
    assert hits[0]["title"] == "asthma"
    assert hits[0]["source"] == str(documents)
    assert 0 < hits[0]["score"] < 1
    queries, judgments = tmp_path / "queries.jsonl", tmp_path / "judgments.jsonl"
    queries.write_text('{"id": "1", "text": "asthma inhalers"}\n{"id": "2", "text": "quux"}\n')
    judgments.write_text(json.dumps({"query": "1", "passage": hits[0]["passage"], "grade": 3}) + "\n")
    call("search", index, "--queries", queries, "--out", tmp_path / "hits.jsonl", "--encoder", "none")
    lines = [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == ["1", "2"]
    assert lines[0]["hits"][0].keys() == {"passage", "score", "title", "section", "url"}
    assert lines[1]["hits"] == []
    files = ("--queries", queries, "--judgments", judgments, "--encoder", "none")
    assert "avg@1      3.000" in call("evaluate", index, *files)
    assert json.loads(call("evaluate", index, *files, "--json"))["MRR"]["mean"] == 1


def test_a_run_is_searched_with_its_own_encoder(tmp_path, documents):
    run = tmp_path / "run"
    stage.run(recipe(documents), RunDir(run))
    (run / "recipe.json").write_text(recipe(documents).model_dump_json())
    assert json.loads(call("search", run, "gout", "--json"))[0]["title"] == "gout"
    assert "3 passages" in call("build", run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build",), "needs a recipe, or sources"),
        (("build", "--source", "text:x"), "need a folder"),
        (("search", "."), "needs a text, or --queries"),
        (("search", ".", "text", "--out", "x"), "belong together"),
    ],
)
def test_what_does_not_belong_together_is_refused(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_source_that_is_not_written_as_layout_and_path():
    with pytest.raises(DataError, match="expected LAYOUT:PATH"):
        stage.section_of(["medquad.xml"], "none")
