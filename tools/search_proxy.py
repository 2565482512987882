"""Writes queries and graded judgments for `medtune knowledge evaluate`, made from MeQSum and MedQuAD.

MeQSum has real consumer messages, each with an expert's one-line question. MedQuAD's answers are indexed by subject and
kind of question. Where the expert's line names a MedQuAD subject and asks for kinds that MedQuAD knows, those answers
are the right ones for the message: grade 1; two thirds for the general article where the kind is missing, one third
where it is not. Lists of links lose two thirds, tables of symptoms one. Nothing of the search is used.

Not covered: people's judgments. An answer under another name of the same subject counts as wrong.

    python tools/search_proxy.py MEDQUAD_XML MEQSUM --out DIR      writes queries.jsonl and judgments.jsonl
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.knowledge.passages import Entry, is_prose, read_entries
from medtune.knowledge.words import words
from medtune.recipe_assistant import KnowledgeSource
from medtune.run_dir import write_lines

ASKED = {
    "treatment": r"treat|therap|cure|medication for|medicine for|remed|surgical option|manage|relieve|drugs? are there",
    "symptoms": r"symptom|signs?\b",
    "causes": r"\bcauses?\b|^why ",
    "exams and tests": r"diagnos|\btest(?:ed|ing|s)?\b|detect|screen",
    "inheritance": r"inherit|heredit|genetic|run in famil|passed",
    "outlook": r"prognos|outlook|life expectancy|surviv|be reversed|be cured",
    "prevention": r"prevent|avoid",
    "research": r"research|clinical trial|latest|stem cell|gene therapy|\bnew\b",
    "susceptibility": r"\brisk|susceptib|likel",
    "complications": r"complication|consequence|long.term effect",
    "genetic changes": r"\bgenes?\b|mutation|chromosom|genetic (?:cause|factor)",
    "frequency": r"how common|prevalen|how many people",
    "considerations": r"\bdiet|\bfood|nutrition|\beat\b",
    "stages": r"\bstages?\b",
    "information": r"find (?:detailed |the latest )?informa|get (?:advice|information)|^what is [a-z -]+\?$"
    r"|^what are [a-z -]+ and|types of|difference",
}
NO_SUBJECT = set(
    """genetic testing|deficiency|surgery|men|women|side effect|drug|sodium|medication|pain|car|arm|tumor|abscess|blood
    |child|go|run|five|disease|syndrome|anesthesia|dc|alcohol|imaging|dup|stem cell|clinical trial|vitamin|c|pap|battery
    |cord|period|hcl|mg|pms|tn|crystal|pet|memory|operation|medicine|ulcer|nevus|fracture|poisoning|bleeding|itching|t
    |ftc|birth defect|caregiver|rehabilitation|diet|nutrition|antibiotic|steroid|corticosteroid|cancer|neoplasm|fever
    |bowel movement|disability|pregnancy|headache|paralysis|lice|tear|hdl|bypass surgery|botox|vaccination|denture
    |glioma|hemangioma|bursitis|candidiasis|adhesion|lipid|assistive device|hernia|cyst|urine test|colitis|muscle
    |hearing aid""".replace("\n    ", "").split("|")
)
LONGEST = 9  # words of a subject's name
FOLDS, HELD_OUT = 5, {3, 4}


@dataclass(frozen=True)
class Query:
    """A message, the expert's line, the kinds it asks for, and the grade of each right passage by id."""

    id: str
    message: str
    question: str
    kinds: tuple[str, ...]
    grades: dict[str, float]

    @property
    def fold(self) -> int:
        return fold_of(self.id)


def fold_of(name: str) -> int:
    """One of five, by a hash of the message's id."""
    return int(hashlib.md5(name.encode()).hexdigest(), 16) % 10 // 2


def read_messages(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def asked_kinds(question: str) -> tuple[str, ...]:
    """The kinds of answer that the expert's line asks for; none for a kind that MedQuAD does not have."""
    return tuple(kind for kind, pattern in ASKED.items() if re.search(pattern, question.lower()))


def judge(entries: Sequence[Entry], messages: Sequence[dict[str, str]]) -> list[Query]:
    """The messages that MedQuAD answers, with their grades."""
    by_name, by_title = defaultdict(set), defaultdict(list)
    for entry in entries:
        by_title[entry.passage.title].append(entry)
        for name in entry.names:
            for form in (name, re.sub(r"\(.*?\)", "", name)):
                by_name[" ".join(words(form))].add(entry.passage.title)
    queries = []
    for row in messages:
        kinds = asked_kinds(row["question"])
        subjects = [name for name in _named(words(row["question"]), by_name) if name not in NO_SUBJECT]
        if not kinds or len(subjects) not in (1, 2):
            continue
        titles = set().union(*(by_name[subject] for subject in subjects))
        grades = _grades([entry for title in sorted(titles) for entry in by_title[title]], kinds)
        if max(grades.values(), default=0) > 0.5:
            queries.append(Query(row["id"], row["message"], row["question"], kinds, grades))
    return queries


def _named(tokens: list[str], by_name: dict[str, set[str]]) -> list[str]:
    """The names in a line, longest first, without overlap."""
    found, place = [], 0
    while place < len(tokens):
        lengths = range(min(LONGEST, len(tokens) - place), 0, -1)
        length = next((n for n in lengths if " ".join(tokens[place : place + n]) in by_name), 0)
        if length:
            found.append(" ".join(tokens[place : place + length]))
        place += length or 1
    return found


def _grades(entries: Sequence[Entry], kinds: tuple[str, ...]) -> dict[str, float]:
    has_kind = any(entry.kind in kinds for entry in entries)
    grades = {}
    for entry in entries:
        if entry.kind in kinds:
            grade = 3
        elif ("research" in kinds and entry.kind == "treatment") or (
            "complications" in kinds and entry.kind == "outlook"
        ):
            grade = 2
        elif entry.kind == "information":
            grade = 1 if has_kind else 2
        else:
            grade = int("information" in kinds)
        if not is_prose(entry.passage.text):
            grade -= 1 if entry.kind == "symptoms" else 2
        if grade > 0:
            grades[entry.passage.id] = round(grade / 3, 2)
    return grades


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("medquad", type=Path)
    parser.add_argument("meqsum", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    entries = read_entries([KnowledgeSource(path=str(arguments.medquad), layout="medquad_xml")])
    queries = judge(entries, read_messages(arguments.meqsum))
    write_lines(
        arguments.out / "queries.jsonl", ({"id": q.id, "text": q.message, "question": q.question} for q in queries)
    )
    judged = [{"query": q.id, "passage": name, "grade": grade} for q in queries for name, grade in q.grades.items()]
    write_lines(arguments.out / "judgments.jsonl", judged)
    print(f"{len(queries)} messages, {len(judged)} judgments")


if __name__ == "__main__":
    main()
