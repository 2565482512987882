"""Reading: archives in place, every way in which a file can be broken, local paths against Hub ids."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medtune.data.sources import pinned, read_rows
from medtune.errors import DataError, PrerequisiteError
from medtune.recipe import Source

CSV = "question,answer\nWhat is A?,It is A.\nWhat is B?,It is B.\n"


def rows(path: Path | str, layout: str = "question_answer", **options: Any) -> list[Any]:
    return list(read_rows(Source.model_validate({"layout": layout, "path": str(path), **options})))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(kind: str, folder: Path) -> Path:
    """CSV in a plain file, a folder or an archive, each with something beside it that must be passed over."""
    if kind == "file":
        return write(folder / "qa.csv", CSV)
    if kind == "gz":
        return write(folder / "qa.csv.gz", gzip.compress(CSV.encode()))
    if kind == "tar":
        return tar_gz(folder / "qa.tar.gz", {"readme.txt": b"hello", "a/.hidden.csv": b"x", "a/qa.csv": CSV.encode()})
    if kind == "zip":
        with zipfile.ZipFile(folder / "qa.zip", "w") as archive:
            archive.writestr("__MACOSX/qa.csv", "rubbish")
            archive.writestr("qa.csv.gz", gzip.compress(CSV.encode()))
        return folder / "qa.zip"
    write(folder / "in" / "deep" / "qa.csv", CSV)
    write(folder / "in" / ".DS_Store", "x")
    write(folder / "in" / "LICENSE", "")
    return folder / "in"


@pytest.mark.parametrize("kind", ["file", "gz", "tar", "zip", "folder"])
def test_same_rows_from_file_folder_and_archive(kind: str, tmp_path: Path) -> None:
    found = rows(packed(kind, tmp_path))
    assert [(row.number, row.values["question"], row.problem) for row in found] == [
        (1, "What is A?", ""),
        (2, "What is B?", ""),
    ]
    assert "qa.csv" in found[0].file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qa.json", json.dumps([{"question": "q", "answer": "a"}])),
        ("qa.json", "\ufeff" + json.dumps([{"question": "q", "answer": "a"}])),
        ("qa.json", '{"question": "q", "answer": "a"}\n'),
        ("qa.jsonl", '\n{"question": "q", "answer": "a"}\n\n'),
        ("qa.csv", "\ufeffquestion,answer\nq,a\n"),
        ("qa.csv", "question;answer\nq;a\n"),
        ("qa.tsv", "question\tanswer\nq\ta\n"),
        ("qa.csv", "question,answer\r\nq,a\r\n\r\n"),
    ],
)
def test_spellings_of_one_row(name: str, content: str, tmp_path: Path) -> None:
    found = rows(write(tmp_path / name, content))
    assert [dict(row.values) for row in found] == [{"question": "q", "answer": "a"}]


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"question": ["q"] * 3000, "answer": ["a"] * 3000})
    parquet.write_table(table, tmp_path / "qa.parquet")
    found = rows(tmp_path / "qa.parquet")
    assert len(found) == 3000
    assert (found[-1].number, found[-1].values["answer"]) == (3000, "a")
    with pytest.raises(DataError, match=r"bad\.parquet: not a Parquet file"):
        rows(write(tmp_path / "bad.parquet", b"PAR1nonsense"))


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'medtune\[parquet\]'"):
        rows(write(tmp_path / "qa.parquet", b"PAR1"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.csv.gz", gzip.compress(CSV.encode() * 50)[:60], r"cut\.csv\.gz: cannot be read .*truncated or damaged"),
        ("no.csv.gz", b"this is no gzip at all", r"no\.csv\.gz: cannot be read .*truncated or damaged"),
        ("cut.tar.gz", b"\x1f\x8b" + b"0" * 50, r"cut\.tar\.gz: cannot be read"),
        ("bad.zip", b"PK nonsense", r"bad\.zip: cannot be read"),
        ("empty.csv", b"", r"empty\.csv: the file is empty"),
        ("blank.jsonl", b"\n \n", r"blank\.jsonl: the file is empty"),
        ("empty.csv.gz", gzip.compress(b""), r"empty\.csv\.gz: the file is empty; expected a header"),
        ("number.json", b"42\n", r"number\.json, row 1|number\.json"),
        ("cut.json", b'[{"question": "q", ', r"cut\.json: not valid JSON \(line 1"),
        ("latin.json", '[{"question": "\u00e9"}]'.encode("latin-1"), r"latin\.json: not UTF-8 text \(byte 15\)"),
        (
            "pretty.json",
            b'{\n "data": [\n',
            r"pretty\.json: line 1 is not a JSON object.*Expected one object per line, or a list",
        ),
        ("utf16.csv", "question,answer\nq,a\n".encode("utf-16"), r"utf16\.csv: the header is not UTF-8 text"),
        ("qa.xlsx", b"zip", r"no file that this layout reads\. Found: 1 x \.xlsx\. Expected: \.csv"),
    ],
)
def test_broken_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, content)
    if name == "number.json":
        assert "expected an object" in rows(path)[0].problem
        return
    with pytest.raises(DataError, match=message):
        rows(path)


def test_folder_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"Found: no file at all\. Expected: \.csv"):
        rows(tmp_path / "empty")


def test_truncated_in_the_middle_of_a_long_file_names_it(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"q{i},{hash(str(i))}\n" for i in range(50_000)).encode())
    path = write(tmp_path / "long.csv.gz", packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"long\.csv\.gz: cannot be read \(ends too early\)"):
        rows(path)


@pytest.mark.parametrize(
    ("name", "content", "number", "problem"),
    [
        (
            "qa.csv",
            b"question,answer\ngood,row\nonly one\ngood,row\n",
            2,
            "1 cells, but the header has 2: question, answer",
        ),
        ("qa.csv", b"question,answer\na,b,c\ngood,row\n", 1, "3 cells"),
        (
            "qa.csv",
            "question,answer\ngood,row\nq,caf\u00e9\ngood,row\n".encode("latin-1"),
            2,
            "column 'answer': not UTF-8",
        ),
        ("qa.csv", b'question,answer\ngood,row\n"never closed,\n', 2, "not valid CSV"),
        ("qa.jsonl", b'{"question": "q"}\n{"question": \n{"question": "q"}\n', 2, "not valid JSON"),
        ("qa.jsonl", b'{"question": "q"}\n[1, 2]\n', 2, "a list, expected an object"),
        ("qa.jsonl", b'{"question": "q"}\n{"question": "\xe9"}\n', 2, "not UTF-8 text"),
    ],
)
def test_broken_rows_carry_their_problem(name: str, content: bytes, number: int, problem: str, tmp_path: Path) -> None:
    broken = [row for row in rows(write(tmp_path / name, content)) if row.problem]
    assert [row.number for row in broken] == [number]
    assert problem in broken[0].problem


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 50])
def test_limit_spreads_evenly(limit: int, tmp_path: Path) -> None:
    path = write(tmp_path / "qa.csv", "question,answer\n" + "".join(f"q{i},a\n" for i in range(10)))
    numbers = [row.number for row in rows(path, limit=limit)]
    assert len(numbers) == min(limit, 10)
    assert numbers[0] == 1
    gaps = {b - a for a, b in itertools.pairwise(numbers)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_wrong_path_lists_what_lies_near(tmp_path: Path) -> None:
    write(tmp_path / "medquad.csv", CSV)
    with pytest.raises(DataError, match=r"medquda\.csv: there is no such file.*organisation/name.*medquad\.csv"):
        rows(tmp_path / "medquda.csv")


def test_hub_id_without_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PrerequisiteError, match=r"no such local file or folder.*pip install 'medtune\[hub\]'"):
        rows("someone/questions")


def test_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrerequisiteError, match=r"someone/questions.*revision v1.*cannot be loaded: .*offline"):
        pinned(Source(layout="question_answer", path="someone/questions", revision="v1"))


def test_hub_rows_come_at_the_commit_that_the_revision_resolves_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub itself is stood in for; the data set that comes back is a real one."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub

    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(path: str, revision: str | None, split: str) -> Any:
        asked.append((path, revision, split))
        return datasets.Dataset.from_list([{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": None}])

    class Api:
        def dataset_info(self, path: str, revision: str | None) -> Any:
            assert (path, revision) == ("someone/questions", "v1")
            return type("Info", (), {"sha": "c0ffee"})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    source = pinned(Source(layout="question_answer", path="someone/questions", revision="v1", split="validation"))
    found = list(read_rows(source))
    assert asked == [("someone/questions", "c0ffee", "validation")]
    assert [(row.number, row.values["question"]) for row in found] == [(1, "q1"), (2, "q2")]
    assert found[0].file == "someone/questions[validation]"


@pytest.mark.network
def test_real_hub_data_set() -> None:
    source = pinned(Source(layout="medquad_csv", path="keivalya/MedQuad-MedicalQnADataset", limit=5))
    assert len(source.revision or "") == 40
    assert len(list(read_rows(source))) == 5
