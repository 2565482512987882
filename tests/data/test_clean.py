from __future__ import annotations

import pytest

from medtune.data import clean
from medtune.recipe import CleanSection
from medtune.types import Conversation, Message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("a\u00a0b\u2003c", "a b c"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen", "zerowidth softhyphen"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("Key Points\n                    - first  \n \t - second", "Key Points\n- first\n- second"),
        ("a\n\n\n \n\nb", "a\n\nb"),
        ("bell\x07 and null\x00", "bell and null"),
        ("  kept as it is: 5 mg/dl, na\u00efve  ", "kept as it is: 5 mg/dl, na\u00efve"),
        ("half a \ud83d character", "half a character"),
        ("tab\tand  two  spaces", "tab and two spaces"),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert clean.normalise(raw) == expected
    assert clean.normalise(expected) == expected


def conversation(question: str, answer: str) -> Conversation:
    return Conversation(id="", messages=(Message("user", question), Message("assistant", answer)))


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("q", "", clean.EMPTY),
        ("", "one two three four five", clean.EMPTY),
        ("q", "one two three four", clean.JUNK),
        ("q", "one two three four five", ""),
        ("q", "a b c d e f g h i", clean.TOO_LONG),
    ],
)
def test_rejection(question: str, answer: str, reason: str) -> None:
    assert clean.rejection(conversation(question, answer), CleanSection(max_answer_words=8)) == reason


def test_short_answers_stay_when_the_recipe_says_so() -> None:
    assert clean.rejection(conversation("q", "yes"), CleanSection(min_answer_words=0)) == ""


def test_answers_with_the_excluded_pattern_are_dropped() -> None:
    section = CleanSection(exclude="Phenotype Ontology|^Links:")
    for answer, reason in (
        ("The Human Phenotype Ontology lists these signs", clean.EXCLUDED),
        ("Links: a b c d e", clean.EXCLUDED),
        ("These are not Links: a b c", ""),
    ):
        assert clean.rejection(conversation("Phenotype Ontology?", answer), section) == reason
