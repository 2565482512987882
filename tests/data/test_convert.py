"""Each layout: what a row becomes, what is refused, and the real file of that layout where there is one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from medtune.data import clean, wording
from medtune.data.convert import LAYOUTS, NO_ANSWER, NO_QUESTION, PLAIN_TEXT, WRONG_ANSWER, check_columns, convert_row
from medtune.data.sources import read_rows
from medtune.errors import DataError
from medtune.recipe import Layout, Source
from medtune.types import Conversation


def convert(layout: str, values: dict[str, Any], **columns: str) -> Any:
    return convert_row(LAYOUTS[layout], values, columns)


def only(converted: Any) -> tuple[str, str, str]:
    (conversation,) = converted
    return conversation.question, conversation.answer, conversation.topic


def test_layouts_are_those_of_the_recipe() -> None:
    assert tuple(LAYOUTS) == get_args(Layout)


@pytest.mark.parametrize(
    ("question", "topic", "tidy"),
    [
        ("What is (are) Acne ?", "Acne", "What is (are) Acne?"),
        ("Who is at risk for Cataract? ?", "Cataract", "Who is at risk for Cataract?"),
        ("what research (or clinical trials) is being done for Apraxia ?", "Apraxia", None),
        ("Is Usher syndrome, type 2 inherited ?", "Usher syndrome, type 2", "Is Usher syndrome, type 2 inherited?"),
        ("Do you have information about A1C", "A1C", "Do you have information about A1C"),
        ("are there complications from botulism?", "", "are there complications from botulism?"),
    ],
)
def test_medquad_csv(question: str, topic: str, tidy: str | None) -> None:
    (conversation,) = convert("medquad_csv", {"Question": question, "Answer": "It is.", "qtype": "information"})
    assert (conversation.topic, conversation.question_type) == (topic, "information")
    assert conversation.question == (tidy or question.replace(" ?", "?"))


def test_medquad_lists_get_lines_of_their_own() -> None:
    assert (
        wording.bullets_on_lines("such as:    -  Red cells    -  White cells") == "such as:\n- Red cells\n- White cells"
    )
    assert wording.bullets_on_lines("damage to nerves - such as this") == "damage to nerves - such as this"


def test_odd_white_space_costs_no_more_than_its_length() -> None:
    blanks = " " * 200_000  # backtracking over these took minutes
    assert wording.bullets_on_lines(f"{blanks}-") == f"{blanks}-"
    assert wording.one_question_mark(f"why?{blanks}x") == f"why?{blanks}x"
    assert wording.one_question_mark(f"why{' ?' * 50_000}") == "why?"


@pytest.mark.parametrize(
    ("instruction", "given", "question", "topic"),
    [
        (
            "Answer this question truthfully",
            'What does the term "drug" mean?',
            'What does the term "drug" mean?',
            "drug",
        ),
        ("What is a biologic?", "", "What is a biologic?", "biologic"),
        ("Define sepsis.", None, "Define sepsis.", "sepsis"),
        ("Summarise the text.", "A long text", "Summarise the text.\n\nA long text", ""),
        ("", "Why does it hurt?", "Why does it hurt?", ""),
    ],
)
def test_flashcards(instruction: str, given: str | None, question: str, topic: str) -> None:
    assert only(convert("flashcards", {"instruction": instruction, "input": given, "output": "a"})) == (
        question,
        "a",
        topic,
    )


@pytest.mark.parametrize("label", ["-1", -1, "-1.0", -1.0])
def test_wrong_answers_are_left_out(label: Any) -> None:
    assert convert("labelled_answers", {"short_question": "q", "short_answer": "a", "label": label}) == WRONG_ANSWER


def test_labelled_answers() -> None:
    assert only(convert("labelled_answers", {"short_question": "q", "short_answer": "a", "label": 1})) == ("q", "a", "")
    with pytest.raises(DataError, match=r"column 'label': 'maybe', expected 1 .* or -1"):
        convert("labelled_answers", {"short_question": "q", "short_answer": "a", "label": "maybe"})


def test_patient_doctor_description_is_topic_or_code() -> None:
    row = {"Patient": "It hurts.", "Doctor": "Where?", "Description": "Q. What does abutment mean?"}
    assert only(convert("patient_doctor", row)) == ("It hurts.", "Where?", "What does abutment mean?")
    (conversation,) = convert("patient_doctor", {**row, "Description": "GENHX"})
    assert (conversation.topic, conversation.question_type) == ("", "GENHX")


def roles(converted: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in converted[0].messages]


def messages(text: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[turn[0]], "content": turn} for turn in text.split()]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ("s1 u1 a1 u2 a2", "s1 u1 a1 u2 a2"),
        ("u1 a1 u2", "u1 a1"),
        ("a0 u1 a1", "u1 a1"),
        ("s1 a0 u1 a1", "s1 u1 a1"),
    ],
)
def test_chat_is_cut_to_what_can_be_learnt(turns: str, expected: str) -> None:
    assert [content for _, content in roles(convert("chat", {"messages": messages(turns)}))] == expected.split()


def test_chat_joins_turns_of_one_speaker() -> None:
    assert roles(convert("chat", {"messages": messages("u1 u2 a1 a2")})) == [
        ("user", "u1\nu2"),
        ("assistant", "a1\na2"),
    ]


def test_chat_without_question_or_answer() -> None:
    assert convert("chat", {"messages": messages("s1 a1")}) == NO_QUESTION
    assert convert("chat", {"messages": messages("s1 u1")}) == NO_ANSWER
    assert convert("chat", {"messages": []}) == NO_QUESTION
    assert convert("chat", {"messages": [{"role": "text", "content": "The lungs."}]}) == PLAIN_TEXT


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", r"column 'messages': str, expected a list"),
        ([{"role": "user"}], r"column 'messages', turn 1: expected an object with role and content"),
        ([{"role": "doctor", "content": "x"}], r"turn 1: role 'doctor', expected system, user, assistant"),
        ([{"role": "user", "content": None}], r"turn 1: content is NoneType, expected text"),
        (messages("u1 s1 a1"), r"a system turn stands after the first turn"),
    ],
)
def test_chat_refuses(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert("chat", {"messages": value})


def test_question_answer_with_renamed_columns() -> None:
    row = {"Frage": "Was?", "Antwort": "Das.", "Thema": "Ding", "id": 7}
    assert only(convert("question_answer", row, question="Frage", answer="Antwort", topic="Thema")) == (
        "Was?",
        "Das.",
        "Ding",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"q": "x", "answer": "a"},
            r"column 'question': missing\. Columns there: q, answer\. This layout needs question, answer; rename",
        ),
        ({"question": None, "answer": "a"}, r"column 'question': null, expected text"),
        ({"question": "q", "answer": 5}, r"column 'answer': int \(5\), expected text"),
    ],
)
def test_broken_rows_name_the_column(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert("question_answer", row)


def test_renaming_a_column_that_the_layout_does_not_have() -> None:
    with pytest.raises(DataError, match=r"data\.sources\.0\.columns: reply: .* Its columns: question, answer, topic"):
        check_columns(LAYOUTS["question_answer"], {"reply": "x"}, "data.sources.0")


def test_library_entry_gives_one_conversation_per_question() -> None:
    entry = {
        "topic": "Acne",
        "questions": ["What is acne?", "Why do I have spots?"],
        "in_short": "Acne is a skin condition.",
        "about": "It is common.",
        "what_to_do": "Wash gently.",
        "see_doctor": "If it scars.",
        "emergency": "",
        "links": ["https://example.org/acne", "https://example.org/skin"],
    }
    first, second = convert("library", entry)
    assert (first.question, second.question) == ("What is acne?", "Why do I have spots?")
    assert first.answer == second.answer
    assert first.answer == (
        "Acne is a skin condition.\n\nIt is common.\n\nWhat you can do:\nWash gently.\n\n"
        "When to see a doctor:\nIf it scars."
    )
    assert (first.topic, first.url) == ("Acne", "https://example.org/acne")
    with pytest.raises(DataError, match=r"column 'questions': str, expected a list of texts"):
        convert("library", {**entry, "questions": "What is acne?"})


def test_embedded_library() -> None:
    rows = list(read_rows(Source(layout="library", path="starter")))
    converted = [conversation for row in rows for conversation in convert("library", dict(row.values))]
    assert len(rows) > 50
    assert 3 * len(rows) <= len(converted) <= 6 * len(rows)
    assert all(conversation.topic and "When to see a doctor:\n" in conversation.answer for conversation in converted)


def test_text(tmp_path: Path) -> None:
    (tmp_path / "asthma.md").write_text("# Asthma in short\n\nIt is common.", encoding="utf-8")
    (tmp_path / "plain.txt").write_text("Just words.", encoding="utf-8")
    rows = list(read_rows(Source(layout="text", path=str(tmp_path))))
    found = [convert("text", dict(row.values))[0] for row in rows]
    assert [(c.topic, c.messages[0].role) for c in found] == [("Asthma in short", "text"), ("plain", "text")]
    assert found[1].answer == "Just words."
    assert found[1].prompt == ()


REAL = {
    "medquad_csv": ("medquad.csv.gz", 16407),
    "medquad_xml": ("medquad_xml.tar.gz", 16409),
    "flashcards": ("flashcards_openstax.json.gz", 5149),
    "labelled_answers": ("labelled_answers.csv.gz", 171),
    "patient_doctor": ("patient_doctor_mts.csv.gz", 1506),
    "chat": ("dialogues_mts.jsonl.gz", 1506),
    "text": ("health_text_openstax.jsonl.gz", 678),
    "question_answer": ("consumer_questions_meqsum.jsonl.gz", 1000),
}


def real_conversations(folder: Path, layout: str) -> list[Conversation]:
    columns = {"question": "message", "answer": "question"} if layout == "question_answer" else {}
    found = []
    for row in read_rows(Source(layout=layout, path=str(folder / REAL[layout][0]))):
        if row.problem or row.values.get("focus", "") is None:
            continue  # 6 documents of MedQuAD have no pairs, 14 pairs no focus
        converted = convert_row(LAYOUTS[layout], row.values, columns)
        found += converted if isinstance(converted, list) else []
    return [clean.normalised(conversation) for conversation in found if conversation.answer]


@pytest.mark.slow
@pytest.mark.parametrize("layout", REAL)
def test_real_file(layout: str, shared_data: Path) -> None:
    found = real_conversations(shared_data, layout)
    assert len(found) == REAL[layout][1]
    for conversation in found:
        assert conversation.messages[-1].role in ("assistant", "text")
        assert all("  " not in message.content for message in conversation.messages)
    with_topic = sum(bool(conversation.topic) for conversation in found) / len(found)
    assert with_topic > 0.99 if layout in ("medquad_csv", "medquad_xml", "flashcards", "text") else with_topic == 0
    if layout.startswith("medquad"):
        types = Counter(conversation.question_type for conversation in found)
        assert types.most_common(2)[0][0] == "information"
        assert types["symptoms"] > 2700
    if layout == "medquad_xml":
        assert all(conversation.url.startswith("http") for conversation in found)
    if layout == "chat":
        assert max(len(conversation.messages) for conversation in found) > 20


@pytest.mark.slow
def test_topics_read_from_the_wording_are_those_of_the_xml(shared_data: Path) -> None:
    focus: dict[str, set[str]] = {}
    for conversation in real_conversations(shared_data, "medquad_xml"):
        focus.setdefault(conversation.question.casefold(), set()).add(conversation.topic.casefold().strip("? "))
    compared = [c for c in real_conversations(shared_data, "medquad_csv") if c.topic and c.question.casefold() in focus]
    assert len(compared) > 16_300
    wrong = [c.question for c in compared if c.topic.casefold() not in focus[c.question.casefold()]]
    assert len(wrong) < 10


@pytest.mark.parametrize(
    ("cell", "texts"),
    [(None, ()), ("", ()), ("One.", ("One.",)), ('["One.", " Two. "]', ("One.", "Two.")), (["One."], ("One.",))],
)
def test_further_references_and_must_have_statements(cell, texts):
    row = {"question": "What is gout?", "answer": "A disease.", "must_have": cell, "references": cell}
    (conversation,) = convert_row(LAYOUTS["question_answer"], row, {})
    assert conversation.must_have == conversation.references == texts


def test_must_have_statements_that_are_no_texts_are_refused():
    row = {"question": "What is gout?", "answer": "A disease.", "must_have": [1]}
    with pytest.raises(DataError, match="column 'must_have': '\\[1\\]', expected a list of texts"):
        convert_row(LAYOUTS["question_answer"], row, {})
