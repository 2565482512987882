"""What is quoted of documents with the library's sections and of passages without any."""

from __future__ import annotations

from medtune.assistant.grounding import Grounding
from medtune.assistant.quoting import quotes
from medtune.types import Passage

TEXT = """How is gout treated?
Medicines are the main treatment for gout. Rest helps.

Initial Treatment

Doctors give medicines against the pain first.
- Ice on the joint helps many people, too."""
PLAIN = Passage("p", TEXT, "Gout", "What are the treatments for Gout ?")
DOCUMENT = [
    Passage("a", "ADHD makes it hard to sit still.", "ADHD", "In short"),
    Passage("b", "All children are restless at times. It is not caused by sugar or bad parenting.", "ADHD", "About"),
    Passage("c", "Ask a doctor for an assessment.", "ADHD", "When to see a doctor"),
]


def quoted(question: str, document: list[Passage], said: str = "") -> list[tuple[str, str]]:
    return [(quote.section, quote.text) for quote in quotes(Grounding(), question, document, said)]


def test_headings_are_not_quoted_as_statements() -> None:
    assert quoted("how is gout treated", [PLAIN]) == [
        ("in_short", "Medicines are the main treatment for gout."),
        ("details", "Rest helps."),
        ("details", "Doctors give medicines against the pain first."),
        ("details", "Ice on the joint helps many people, too."),
    ]


def test_a_long_passage_is_quoted_from_where_it_answers() -> None:
    long = Passage(
        "l", "Filler about nothing at all. " * 20 + "Colchicine stops an attack early. It upsets the gut.", "Gout"
    )
    assert quoted("does colchicine upset the gut", [long])[0] == ("in_short", "Colchicine stops an attack early.")


def test_the_sentence_that_answers_follows_the_short_answer() -> None:
    found = quoted("is it caused by sugar", DOCUMENT)
    assert found[:2] == [
        ("in_short", "ADHD makes it hard to sit still."),
        ("in_short", "It is not caused by sugar or bad parenting."),
    ]
    assert found.count(("details", "It is not caused by sugar or bad parenting.")) == 0
    assert [section for section, _ in quoted("what is it", DOCUMENT)] == ["in_short", "details", "details", "seek_care"]


def test_a_further_question_gets_what_is_near_and_when_to_seek_care() -> None:
    said = "ADHD makes it hard to sit still. And more."
    assert quoted("is sugar the cause?", DOCUMENT, said) == [
        ("in_short", "It is not caused by sugar or bad parenting."),
        ("seek_care", "Ask a doctor for an assessment."),
    ]
    assert quoted("can he drive a car?", DOCUMENT, said) == []
