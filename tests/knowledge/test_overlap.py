from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from medtune.errors import DataError
from medtune.knowledge.overlap import shared_runs

SENTENCE = "Drink plenty of water and rest until the fever has gone."


def test_a_run_is_found_in_every_kind_of_file_whatever_the_case(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'question,answer\nhow,"Well. {SENTENCE.upper()}"\n')
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "Don't stop: the doctor isn't here today"}]}))
    texts = [
        SENTENCE,
        "Nothing here is taken from anywhere at all, as far as we know.",
        "The doctor isnt here.",
    ]
    assert shared_runs(texts, tmp_path, 8) == [(0, "Drink plenty of water and rest until the fever has gone", "a.csv")]
    assert [(number, file) for number, _, file in shared_runs(texts, tmp_path, 4)] == [(0, "a.csv"), (2, "b.jsonl.gz")]


def test_a_run_does_not_go_on_over_the_end_of_a_text(tmp_path: Path) -> None:
    rows = ["Drink plenty of water and rest", "until the fever has gone"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    assert shared_runs([SENTENCE], tmp_path, 8) == []
    runs = [run for _, run, _ in shared_runs([SENTENCE], tmp_path, 5)]
    assert runs == ["Drink plenty of water and rest", "until the fever has gone"]


def test_shorter_texts_than_a_run_share_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCE)
    assert shared_runs(["Drink plenty", ""], tmp_path, 8) == []


def test_a_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        shared_runs([SENTENCE], tmp_path, 8)
