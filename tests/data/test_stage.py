"""The stage as a whole: what it writes, what it says, and that it leaves nothing behind when it fails."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from medtune.data import stage
from medtune.errors import DataError, RunDirError
from medtune.recipe import Recipe
from medtune.recipe_file import validate
from medtune.run_dir import RunDir, read_json


def recipe(path: Path, layout: str = "question_answer", **data: Any) -> Recipe:
    source = {"layout": layout, "path": str(path), **data.pop("source", {})}
    tree = {"name": "t", "model": {"base": "scratch"}, "data": {"sources": [source], **data}}
    return validate(tree, "test")


def question(number: int) -> dict[str, str]:
    words = random.Random(number).choices([f"w{i}" for i in range(500)], k=20)
    return {
        "question": f"What is thing {number}?",
        "answer": " ".join(words),
        "topic": f"thing {number}",
        "url": f"u{number}",
    }


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.fixture
def rows() -> list[Any]:
    return [question(number) for number in range(200)]


def test_writes_three_splits_and_the_card(rows: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = RunDir(tmp_path / "run")
    rows += [rows[0], {**question(900), "answer": "too short"}, {**question(901), "answer": ""}]
    stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows), source={"licence": "CC0"}), run_dir)
    splits = {name: stage.load_split(run_dir, name) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 180, "validation": 10, "test": 10}
    everything = [conversation for split in splits.values() for conversation in split]
    assert len({conversation.id for conversation in everything}) == 200
    first = next(conversation for conversation in everything if conversation.question == "What is thing 7?")
    assert (first.answer, first.topic, first.url) == (question(7)["answer"], "thing 7", "u7")
    assert (first.licence, first.source) == ("CC0", str(tmp_path / "qa.jsonl"))
    assert len(first.group) == 16
    assert sorted(path.name for path in run_dir.data.iterdir()) == [
        "data_card.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    card = read_json(run_dir.data / "data_card.json")
    assert card["conversations"] == 200
    assert card["sources"][0] | {"path": ""} == {
        "path": "",
        "layout": "question_answer",
        "revision": None,
        "commit": None,
        "licences": {"CC0": 202},
        "files": 1,
        "rows": 203,
        "bad_rows": 0,
        "conversations": 201,
    } | {"licences": {"CC0": 201}}
    assert {item["reason"]: item["count"] for item in card["dropped"]} == {
        "exact duplicate": 1,
        "fewer words than min_answer_words": 1,
        "empty question or answer": 1,
    }
    assert card["dropped"][0]["example"]["row"] in (202, 203)
    assert card["leakage"]["after"] == {"questions": 0, "answers": 0, "topics": 0, "measured": 10}
    assert card["lengths"]["answer_words"]["p50"] == 20
    assert sum(card["answer_histogram"]["counts"]) == 200
    assert (card["topics"]["count"], card["topics"]["without"]) == (200, 0)
    printed = capsys.readouterr().out
    assert "203 rows -> 200 conversations about 200 topics" in printed
    assert "question verbatim in train" in printed


def test_phrasings_make_a_second_test_that_goes_when_it_is_not_asked_for_any_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"topic": f"t{i}", "questions": [f"{way} t{i}" for way in "abcd"], "in_short": question(i)["answer"]}
               for i in range(40)]  # fmt: skip
    path, run_dir = jsonl(tmp_path / "library.jsonl", entries), RunDir(tmp_path / "run")
    split = {"validation": 0.1, "test": 0.1, "phrasings": 0.25}
    stage.run(recipe(path, "library", split=split), run_dir)
    train, seen = (stage.load_split(run_dir, name) for name in ("train", "test_seen"))
    assert len(seen) == len({conversation.topic for conversation in seen}) == len(train) / 3
    assert {conversation.answer for conversation in seen} <= {conversation.answer for conversation in train}
    card = read_json(run_dir.data / "data_card.json")
    assert card["splits"]["test_seen"]["conversations"] == len(seen)
    assert card["conversations"] == 160
    assert card["leakage"]["seen"] == {"questions": 0, "answers": 1, "topics": 1, "measured": len(seen)}
    assert "test_seen" in capsys.readouterr().out
    stage.run(recipe(path, "library", split={**split, "phrasings": 0}), run_dir)
    assert not run_dir.split("test_seen").exists()
    assert "test_seen" not in read_json(run_dir.data / "data_card.json")["splits"]


def test_same_files_whatever_the_order_of_the_rows(rows: list[Any], tmp_path: Path) -> None:
    held_out = []
    for seed in range(2):
        random.Random(seed).shuffle(rows)
        run_dir = RunDir(tmp_path / str(seed))
        stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows)), run_dir)
        held_out.append({conversation.id: conversation for conversation in stage.load_split(run_dir, "test")})
    assert held_out[0] == held_out[1]


def test_few_bad_rows_are_skipped_counted_and_shown(rows: list[Any], tmp_path: Path) -> None:
    rows[49:49] = ['{"question": "broken', {"question": None, "answer": "x"}]
    run_dir = RunDir(tmp_path / "run")
    stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows)), run_dir)
    bad = read_json(run_dir.data / "data_card.json")["bad_rows"]
    assert bad["count"] == 2
    assert [example["row"] for example in bad["examples"]] == [50, 51]
    assert bad["examples"][1] == {"file": "qa.jsonl", "row": 51, "text": "column 'question': null, expected text"}


def test_too_many_bad_rows_stop_the_run_and_leave_nothing(rows: list[Any], tmp_path: Path) -> None:
    rows[5:8] = [{"question": "q", "answer": 5}, {"question": "q"}, "[]"]
    run_dir = RunDir(tmp_path / "run")
    with pytest.raises(DataError, match=r"data\.sources\.0 .*: 3 of 200 rows are broken, more than") as caught:
        stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows)), run_dir)
    assert "qa.jsonl, row 6: column 'answer': int (5), expected text" in str(caught.value)
    assert "qa.jsonl, row 7: column 'answer': missing. Columns there: question." in str(caught.value)
    assert list(run_dir.data.iterdir()) == []
    stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows), clean={"max_bad_rows": 0.02}), run_dir)


def test_failure_keeps_what_an_earlier_run_wrote(rows: list[Any], tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    path = jsonl(tmp_path / "qa.jsonl", rows)
    stage.run(recipe(path), run_dir)
    before = {file.name: file.read_bytes() for file in run_dir.data.iterdir()}
    jsonl(path, [{"question": "q"}])
    with pytest.raises(DataError):
        stage.run(recipe(path), run_dir)
    assert {file.name: file.read_bytes() for file in run_dir.data.iterdir()} == before


def test_folder_that_cannot_be_written(rows: list[Any], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(RunDirError, match=r"run/data: cannot be written .*choose another --out"):
        stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows)), RunDir(tmp_path / "run"))


def test_characters_that_json_can_spell_and_files_cannot_hold(rows: list[Any], tmp_path: Path) -> None:
    rows[3] = {name: value + " \ud83d" for name, value in rows[3].items()}
    stage.run(recipe(jsonl(tmp_path / "qa.jsonl", rows)), RunDir(tmp_path / "run"))


def test_nothing_left_after_cleaning(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "qa.jsonl", [{"question": "q", "answer": "short"}] * 3)
    with pytest.raises(DataError, match=r"no conversation is left.*3 fewer words than min_answer_words"):
        stage.run(recipe(path), RunDir(tmp_path / "run"))


def test_fingerprint_follows_recipe_and_files(rows: list[Any], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "qa.jsonl", rows)
    first = stage.fingerprint(recipe(path))
    assert stage.fingerprint(recipe(path)) == first
    assert stage.fingerprint(recipe(path, max_length=64)) == first, "tokenisation happens later"
    assert stage.fingerprint(recipe(path, split={"seed": 1})) != first
    jsonl(path, rows[1:])
    assert stage.fingerprint(recipe(path)) != first


def test_describe_layouts_names_every_column() -> None:
    described = {name: columns for name, columns, _, _ in stage.describe_layouts()}
    assert described["question_answer"].startswith("question, answer, [topic]")
    assert len(described) == 9
