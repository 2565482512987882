"""The run folder: atomic writes, fingerprints that survive, a lock that the system lets go of."""

import subprocess
import sys

import pytest

from medtune.errors import RunDirError
from medtune.run_dir import RunDir, environment, hash_of, read_json, read_lines, write_json, write_lines, write_text


def test_failed_write_leaves_the_old_content(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", float("nan"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_unwritable_folder_is_explained(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RunDirError, match="cannot be written"):
        write_text(tmp_path / "a", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunDirError, match=r"cannot be written.*another --out"), RunDir(path).lock():
            pass


def test_damaged_json_and_lines_are_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunDirError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n{"a"')
    with pytest.raises(RunDirError, match=r"b\.jsonl:2: not a JSON object"):
        list(read_lines(tmp_path / "b.jsonl"))
    with pytest.raises(RunDirError, match="not found"):
        list(read_lines(tmp_path / "c.jsonl"))


def test_lines_round_trip(tmp_path):
    rows = [{"a": "ü\u2028x"}, {"a": None}]
    write_lines(tmp_path / "a.jsonl", rows)
    assert list(read_lines(tmp_path / "a.jsonl")) == rows


def test_a_stage_is_done_for_its_own_fingerprint_only(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    assert not run_dir.is_done("data", "f")
    run_dir.finish("data", "f", seconds=1.5)
    run_dir.update_manifest(seed=3)
    assert run_dir.is_done("data", "f")
    assert not run_dir.is_done("data", "g")
    assert not run_dir.is_done("tune", "f")
    assert run_dir.manifest()["seed"] == 3


def test_hash_depends_on_values_not_on_order():
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    assert hash_of("ab", "c") != hash_of("a", "bc")


def test_lock_keeps_a_second_process_out_and_ends_with_the_first(tmp_path):
    script = f"""
from pathlib import Path
from medtune.run_dir import RunDir
with RunDir(Path({str(tmp_path)!r})).lock():
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunDirError, match="another medtune process"), RunDir(tmp_path).lock():
            pass
        holder.kill()
    with RunDir(tmp_path).lock():
        pass


def test_environment_names_versions_but_nobody():
    import getpass
    import platform

    facts = environment()
    assert facts["versions"]["torch"]
    assert platform.node() not in str(facts) or platform.node() in platform.platform(terse=True)
    assert f"/{getpass.getuser()}" not in str(facts)
