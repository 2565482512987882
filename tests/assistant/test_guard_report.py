"""Reading labelled lines, measuring, writing verdicts, and the commands over them."""

import json

import pytest
from typer.testing import CliRunner

from medtune.assistant import cases, guard_report
from medtune.assistant.guard_report import auroc, wilson
from medtune.cli import app
from medtune.errors import DataError
from medtune.types import Verdict


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_text_and_messages_are_read(tmp_path):
    turns = [
        {"role": "user", "content": "my knee hurts"},
        {"role": "assistant", "content": "Since when?"},
        {"role": "user", "content": "today"},
    ]
    rows = ({"id": 7, "text": "hi", "in_scope": False}, {"messages": turns, "emergency": False})
    first, second = cases.read(write(tmp_path / "a.jsonl", *rows))
    assert (first.id, first.text, first.labels) == ("7", "hi", {"in_scope": False})
    assert (second.id, second.text, len(second.messages)) == ("2", "today", 3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "a list, no object"),
        ({"question": "x"}, "neither a `text` nor `messages`"),
        ({"text": 3}, "neither a `text`"),
        ({"text": " "}, "missing or empty"),
        ({"messages": [{"role": "doctor", "content": "x"}]}, "`role` .system, user, assistant"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "last user turn"),
        ({"text": "x", "in_scope": "yes"}, "Expected true or false"),
    ],
)
def test_a_bad_line_names_file_and_line(tmp_path, row, message):
    path = write(tmp_path / "bad.jsonl", {"text": "good"}, row)
    with pytest.raises(DataError, match=message) as error:
        cases.read(path)
    assert f"{path}, line 2" in str(error.value)


def test_no_line_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no line"):
        cases.read(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(DataError, match="cannot be read"):
        cases.read(tmp_path / "absent.jsonl")


def test_wilson_is_wilson():
    share = wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0).value is None
    assert wilson(10, 10).high == pytest.approx(1)


def test_auroc_counts_ties_half_and_has_an_interval():
    assert auroc([0.9, 0.8], [0.1, 0.2]).value == 1
    assert auroc([0.5, 0.5], [0.5, 0.5]).value == 0.5
    some = auroc([0.9, 0.4, 0.8], [0.1, 0.5, 0.2, 0.3])
    assert some.value == pytest.approx(11 / 12)
    assert 0 < some.low < some.value < some.high <= 1
    assert auroc([0.9] * 50, [0.1] * 50).low > 0.9
    assert auroc([], [0.1]).value is None


def found(guard, fired, score):
    return {guard: Verdict(guard, fired, score, "why")}


def test_measure_counts_each_label_on_its_own_cases(tmp_path):
    rows = [{"text": str(n), "emergency": n < 2} for n in range(4)] + [{"text": "x", "in_scope": True}]
    given = cases.read(write(tmp_path / "a.jsonl", *rows))
    verdicts = [found("emergency", n in (0, 3), 0.9 - n / 10) for n in range(4)] + [found("scope", True, 0.8)]
    emergency, scope = guard_report.measure(given, verdicts)
    assert (emergency.sensitivity.value, emergency.specificity.value, emergency.auroc.value) == (0.5, 0.5, 1)
    assert [case.text for case, _ in emergency.misses] == ["1", "3"]
    assert (scope.sensitivity.value, scope.specificity.value, scope.auroc.value) == (1, None, None)
    plain = json.loads(guard_report.as_json([emergency, scope]))
    assert plain["emergency"]["misses"][0] == {
        "id": "2", "text": "1", "expected": True, "verdict": False, "score": 0.8, "reason": "why",
    }  # fmt: skip


def test_lines_without_labels_cannot_be_measured(tmp_path):
    with pytest.raises(DataError, match="emergency, crisis, in_scope"):
        guard_report.measure(cases.read(write(tmp_path / "a.jsonl", {"text": "x"})), [{}])


def test_check_keeps_ids_and_writes_three_verdicts(tmp_path):
    path = write(tmp_path / "in.jsonl", {"id": "a1", "text": "my head hurts"}, {"text": "write a poem"})
    result = CliRunner().invoke(
        app, ["guard", "check", str(path), "--out", str(tmp_path / "out.jsonl"), "--encoder", "none"]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a1", "2"]
    for row in rows:
        assert list(row) == ["id", "emergency", "crisis", "in_scope"]
        for label in ("emergency", "crisis", "in_scope"):
            assert list(row[label]) == ["verdict", "score", "reason"]
    assert rows[0]["in_scope"]["score"] > rows[1]["in_scope"]["score"]


def test_evaluate_prints_figures_and_misses(tmp_path):
    path = write(
        tmp_path / "in.jsonl", {"text": "my head hurts", "in_scope": False}, {"text": "write a poem", "in_scope": False}
    )
    shown = CliRunner().invoke(app, ["guard", "evaluate", str(path), "--encoder", "none"])
    assert shown.exit_code == 0, shown.output
    assert "fired in vain (1)" in shown.output
    assert "my head hurts" in shown.output
    plain = CliRunner().invoke(app, ["guard", "evaluate", str(path), "--encoder", "none", "--json"])
    assert json.loads(plain.output)["in_scope"]["specificity"]["value"] == 0.5


def test_train_without_the_public_files_says_what_it_needs(tmp_path):
    result = CliRunner().invoke(app, ["guard", "train", "--data", str(tmp_path), "--out", str(tmp_path / "weights")])
    assert result.exit_code != 0
    assert isinstance(result.exception, DataError)
    assert "consumer_questions_meqsum.jsonl.gz" in str(result.exception)


def test_the_public_files_are_read(shared_data):
    messages = cases.patients(shared_data)
    assert len(messages) == 1000
    assert not any("[NAME]" in message or "[CONTACT]" in message for message, _ in messages)
    assert len(cases.encyclopaedia(shared_data)) == 800
    assert all(len(text.split()) <= 90 for text in cases.dialogues(shared_data))
