"""From sources to passages: which there are, what they are found by, and what is refused."""

import json
from pathlib import Path

import pytest

from medtune.errors import DataError
from medtune.knowledge.passages import LIBRARY_SECTIONS, cut, is_prose, read_entries, source_files
from medtune.recipe_assistant import KnowledgeSource

MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="1" source="NIH" url="https://example.org/gout">
<Focus>Gout</Focus>
<FocusAnnotations><Synonyms><Synonym>podagra</Synonym></Synonyms></FocusAnnotations>
<QAPairs><QAPair pid="1"><Question qid="1-1" qtype="causes">What causes Gout ?</Question>
<Answer>{answer}</Answer></QAPair></QAPairs></Document>"""
LONG = " ".join(f"Sentence number {n} says that uric acid makes crystals in the joint." for n in range(60))


def table(path: Path, *rows: dict) -> KnowledgeSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return KnowledgeSource(path=str(path), layout="question_answer", licence="CC0")


def test_the_starter_library_gives_a_passage_per_section():
    entries = read_entries([KnowledgeSource(path="starter")])
    first = [e for e in entries if e.passage.title == entries[0].passage.title]
    assert [e.passage.section for e in first] == [heading for heading, _ in LIBRARY_SECTIONS.values()]
    passage = first[0].passage
    assert passage.url.startswith("https://")
    assert passage.licence == "Apache-2.0"
    assert not passage.reviewed
    assert first[0].names[0] == passage.title
    assert len(first[0].names) > 1
    assert len(first[0].questions) > 1
    assert len({e.passage.id for e in entries}) == len(entries)


def test_a_library_of_ones_own_may_name_its_columns(tmp_path):
    row = {
        "subject": "Gout",
        "questions": ["What is gout?"],
        "in_short": "Gout makes joints swell and hurt.",
        "reviewed": True,
    }
    (tmp_path / "own.jsonl").write_text(
        json.dumps(row | {"lay_words": ["big toe on fire"], "reviewed_on": "2025-02-03"})
    )
    (entry,) = read_entries([KnowledgeSource(path=str(tmp_path / "own.jsonl"), columns={"topic": "subject"})])
    assert (entry.passage.title, entry.passage.date, entry.passage.reviewed) == ("Gout", "2025-02-03", True)
    assert entry.names == ("Gout",)
    assert entry.questions == ("big toe on fire", "What is gout?")


def test_a_medquad_answer_is_one_passage_however_long(tmp_path):
    (tmp_path / "gout.xml").write_text(MEDQUAD.format(answer=LONG))
    (found,) = read_entries([KnowledgeSource(path=str(tmp_path), layout="medquad_xml")])
    assert (found.passage.title, found.passage.section) == ("Gout", "What causes Gout?")
    assert found.passage.url == "https://example.org/gout"
    assert found.passage.licence == "CC BY 4.0"
    assert len(found.passage.text.split()) == len(LONG.split())
    assert found.names == ("Gout", "podagra")
    assert found.questions == ("What causes Gout?",)
    assert found.kind == "causes"


def test_long_texts_of_other_layouts_are_cut_between_sentences(tmp_path):
    source = table(tmp_path / "rows.jsonl", {"question": "What is gout?", "answer": LONG, "topic": "Gout"})
    entries = read_entries([source])
    assert len(entries) > 2
    assert all(entry.passage.text.endswith(".") for entry in entries)
    assert " ".join(entry.passage.text for entry in entries) == LONG
    assert all(100 <= len(entry.passage.text.split()) <= 230 for entry in entries)
    assert {entry.passage.title for entry in entries} == {"Gout"}


def test_ids_stay_when_the_folder_moves_and_change_with_the_text(tmp_path):
    row = {"question": "What is gout?", "answer": "A painful swelling of the joints.", "topic": "Gout"}
    ids = []
    for name, answer in (("a", row["answer"]), ("b", row["answer"]), ("c", "Another text about the same joints.")):
        (tmp_path / name).mkdir()
        (entry,) = read_entries([table(tmp_path / name / "rows.jsonl", row | {"answer": answer})])
        ids.append(entry.passage.id)
    assert ids[0] == ids[1] != ids[2]


def test_facts_of_the_source_fill_what_the_rows_lack(tmp_path):
    path = tmp_path / "note.md"
    path.write_text("# Gout\n\nUric acid makes crystals in the joint.")
    source = KnowledgeSource(path=str(path), layout="text", url="https://example.org", date="2024-05-01", licence="CC0")
    passage = read_entries([source])[0].passage
    assert (passage.url, passage.date, passage.licence) == ("https://example.org", "2024-05-01", "CC0")


def test_a_text_that_stands_twice_is_one_passage(tmp_path):
    row = {"question": "What is gout?", "answer": "A painful swelling of the joints.", "topic": "Gout"}
    assert len(read_entries([table(tmp_path / "rows.jsonl", row, row)])) == 1


def test_a_source_without_a_new_passage_is_refused(tmp_path):
    source = table(tmp_path / "rows.jsonl", {"question": "What is gout?", "answer": "Joints swell and hurt a lot."})
    with pytest.raises(DataError, match=r"sources\.1.*no passage in it that is not in an earlier source"):
        read_entries([source, source])


def test_broken_rows_are_named(tmp_path):
    source = table(tmp_path / "rows.jsonl", {"question": "What is gout?", "answer": None})
    with pytest.raises(DataError, match=r"1 of 1 rows are broken.*\n.*rows.jsonl, row 1: column 'answer': null"):
        read_entries([source])


def test_an_unknown_layout_names_those_there_are():
    with pytest.raises(DataError, match=r"layout 'medquad'. Expected medquad_xml, .* or documents"):
        read_entries([KnowledgeSource(path="starter", layout="medquad")])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        read_entries([KnowledgeSource(path=str(tmp_path / "no where"), layout="documents")])


def test_changed_files_are_seen(tmp_path):
    source = table(tmp_path / "rows.jsonl", {"question": "q", "answer": "a"})
    before = source_files([source])
    table(tmp_path / "rows.jsonl", {"question": "q", "answer": "another"})
    assert source_files([source]) != before


def test_pieces_are_even_and_lose_nothing():
    text = "\n\n".join(LONG[start : start + 700].strip() for start in range(0, len(LONG), 700))
    pieces = cut(text, 120)
    lengths = [len(piece.split()) for piece in pieces]
    assert " ".join(" ".join(pieces).split()) == " ".join(text.split())
    assert max(lengths) <= 150
    assert min(lengths) >= 60
    assert cut("Short text.") == ["Short text."]
    assert cut("") == []
    assert cut("word " * 500) == [("word " * 500).strip()]  # no sentence ends: nowhere to cut


def test_link_lists_and_percentage_tables_are_not_prose():
    links = "These resources address the diagnosis or management of it: - Genetic Testing Registry: X - Gene Review: X"
    percents = (
        "Signs and Symptoms Approximate number of patients Myopia 90% Seizures 50% Ataxia 50% Cataract 50% Cyst 7%"
    )
    assert not is_prose(links)
    assert not is_prose(percents)
    assert is_prose("About 90 percent of cases (90%) are caused by smoking. Stop smoking.")


@pytest.mark.slow
def test_medquad_as_a_whole(shared_data):
    entries = read_entries([KnowledgeSource(path=str(shared_data / "medquad_xml.tar.gz"), layout="medquad_xml")])
    assert 16_000 < len(entries) < 16_423
    assert all(entry.passage.url for entry in entries)
    assert sum(not is_prose(entry.passage.text) for entry in entries) > 3000
    assert sum(len(entry.names) > 1 for entry in entries) > 5000
