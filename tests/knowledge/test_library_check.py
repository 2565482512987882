from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import DataError
from medtune.knowledge.library_check import check

GOOD: dict[str, Any] = {
    "id": "hay-fever",
    "topic": "Hay fever",
    "category": "condition",
    "synonyms": ["pollen allergy"],
    "lay_words": ["runny nose in spring"],
    "questions": ["what helps against hay fever", "is it hay fever or a cold", "can hay fever start late in life"],
    "in_short": "Hay fever is an allergy to pollen. It makes the nose run and the eyes itch.",
    "about": "The body takes pollen for a threat. It comes back each year when the same plants bloom.",
    "what_to_do": "Keep windows shut on dry days. Wash your hair at night.",
    "see_doctor": "See a doctor if sleep or school suffers.",
    "emergency": "Call the emergency number if you cannot breathe well or your face swells.",
    "links": ["https://medlineplus.gov/hayfever.html"],
    "reviewed": False,
    "reviewed_by": None,
    "reviewed_on": None,
}
OTHER = {
    "id": "head-lice",
    "topic": "Head lice",
    "synonyms": ["nits"],
    "questions": ["how do i get rid of lice", "do nits jump", "must my child stay home with lice"],
    "in_short": "Lice are tiny bugs that live in hair. They are a pest but do no harm.",
    "about": "They crawl from head to head. Clean hair gets them just as well.",
    "what_to_do": "Comb wet hair with a fine comb every few days.",
    "see_doctor": "Ask a doctor about sores on the scalp.",
}


def found(folder: Path, *entries: dict[str, Any]) -> list[tuple[str, str, bool, str]]:
    path = folder / "library.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    count, problems = check(str(path))
    assert count == len(entries)
    return [(problem.entry, problem.field, problem.is_error, problem.text) for problem in problems]


def test_a_sound_library_has_no_problem(tmp_path: Path) -> None:
    signed = {"reviewed": True, "reviewed_by": "Dr A. Example", "reviewed_on": "2025-03-01"}
    assert found(tmp_path, GOOD, {**GOOD, **OTHER, **signed}) == []


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"topic": ""}, "topic", "at least 1 character"),
        ({"id": "Hay Fever"}, "id", "match pattern"),
        ({"questions": ["one", "two"]}, "questions", "at least 3 items"),
        ({"questions": "what is hay fever"}, "questions", "valid array"),
        ({"category": "allergy"}, "category", "'children', 'condition'"),
        ({"summary": "a field that no entry has"}, "summary", "not permitted"),
        ({"reviewed": "yes"}, "reviewed", "valid boolean"),
        ({"reviewed": True}, "reviewed", "takes both reviewed_by and reviewed_on"),
        ({"reviewed_by": "Dr A. Example"}, "reviewed", "without a review both stay null"),
        ({"reviewed": True, "reviewed_by": "Dr A", "reviewed_on": "2999-01-01"}, "reviewed_on", "future"),
        ({"links": []}, "links", "at least 1 item"),
        ({"links": ["medlineplus.gov/hayfever"]}, "links.0", "not a well-formed"),
        ({"links": ["https://exa mple.gov/x"]}, "links.0", "not a well-formed"),
        ({"emergency": ""}, "emergency", "every condition can become one"),
        ({"emergency": "Trouble with breathing or a swollen face."}, "emergency", "does not say what to do"),
        ({"emergency": "Needs urgent care.", "category": "first_aid"}, "emergency", "call the emergency number"),
        ({"category": "mental_health"}, "emergency", "suicide or self-harm"),
        ({"what_to_do": "Take 10 mg at night."}, "what_to_do", "gives a dose ('10 mg')"),
        ({"what_to_do": "Take two tablets at night."}, "what_to_do", "gives a dose ('two tablets')"),
        (
            {"about": "Immunological hypersensitivity to aeroallergens characteristically precipitates rhinitis. " * 3},
            "text",
            "reads at grade",
        ),
    ],
)
def test_each_mistake_is_found_with_entry_and_field(
    tmp_path: Path, change: dict[str, Any], field: str, said: str
) -> None:
    problems = found(tmp_path, {**GOOD, **change})
    assert [(entry, name.partition(".")[0], is_error) for entry, name, is_error, _ in problems] == [
        (change.get("id", "hay-fever"), field.partition(".")[0], True)
    ]
    assert said in problems[0][3]


def test_all_mistakes_of_all_entries_come_at_once(tmp_path: Path) -> None:
    problems = found(tmp_path, {**GOOD, "topic": "", "links": []}, {**GOOD, **OTHER, "emergency": ""}, {"id": "bare"})
    assert {(entry, field) for entry, field, _, _ in problems} >= {
        ("hay-fever", "topic"),
        ("hay-fever", "links"),
        ("head-lice", "emergency"),
        ("bare", "questions"),
        ("bare", "in_short"),
    }


def test_an_unknown_host_is_worth_a_look_and_no_error(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, {**GOOD, "links": ["https://nhs.uk.example.com/x", "https://www.nhs.uk/hay"]})
    assert problem[:3] == ("hay-fever", "links", False)
    assert "nhs.uk.example.com is not among" in problem[3]


def test_repeated_ids_topics_questions_and_texts_are_found(tmp_path: Path) -> None:
    twin = {**GOOD, "id": "pollen", "topic": "hay-fever!", "questions": ["What helps against hay fever?", "b c", "d e"]}
    assert [(entry, field) for entry, field, _, _ in found(tmp_path, GOOD, twin)] == [
        ("pollen", "topic"),
        ("pollen", "questions"),
        ("pollen", "text"),
    ]
    assert [(entry, field) for entry, field, _, _ in found(tmp_path, GOOD, {**GOOD, **OTHER, "id": "hay-fever"})] == [
        ("hay-fever", "id")
    ]


def test_a_topic_that_is_another_entrys_synonym_is_a_warning(tmp_path: Path) -> None:
    (problem,) = found(tmp_path, {**GOOD, "synonyms": ["Head lice"]}, {**GOOD, **OTHER})
    assert problem[:3] == ("head-lice", "topic", False)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        check(str(tmp_path / "absent.jsonl"))


def test_copied_sentences_are_found_and_names_are_not(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "page.txt").write_text(
        "He said: the BODY takes pollen for a threat; it comes back each year. Ask the "
        "National Institute of Diabetes and Digestive and Kidney Diseases."
    )
    named = "The National Institute of Diabetes and Digestive and Kidney Diseases explains it."
    path = tmp_path / "library.jsonl"
    path.write_text(json.dumps({**GOOD, "see_doctor": named}))
    _, problems = check(str(path), texts)
    assert [(problem.field, problem.text) for problem in problems] == [
        ("about", "'The body takes pollen for a threat It comes back each year' stands in page.txt word for word")
    ]


def test_the_embedded_library_passes() -> None:
    entries, problems = check("starter")
    assert entries >= 300
    assert problems == []


@pytest.mark.slow
def test_the_embedded_library_copies_nothing(shared_data: Path) -> None:
    assert check("starter", shared_data)[1] == []


def test_the_command_prints_a_table_and_fails_where_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "library.jsonl"
    path.write_text(json.dumps({**GOOD, "emergency": ""}))
    for target, code, said in (("starter", 0, "0 errors, 0 warnings"), (str(path), 1, "1 errors"), ("nope", 2, "nope")):
        done = subprocess.run(
            [sys.executable, "-m", "medtune.cli", "library", "check", target], capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
