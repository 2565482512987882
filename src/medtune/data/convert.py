"""From a raw row to conversations: one small function per layout, and the table of layouts.

Covered: column names and their renaming, types, topics where the source names one. Not covered: what a question's
wording tells (`wording`), white space and quality (`clean`). A converter returns the row's conversations, or the reason
why the row is left out; a broken row raises DataError with the column, and the caller adds file and row.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medtune.data import wording
from medtune.errors import DataError
from medtune.types import Conversation, Message

Values = Mapping[str, Any]
Converted = list[Conversation] | str
NO_QUESTION, NO_ANSWER, WRONG_ANSWER = "no question", "no answer", "labelled as a wrong answer"
PLAIN_TEXT = "a plain text, not a chat"


@dataclass(frozen=True)
class Layout:
    """How rows are laid out: columns that must and that may be there, and the file endings that it is read from."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    suffixes: tuple[str, ...]
    convert: Callable[[Values], Converted]
    example: str
    origin: str
    licence: str = ""


def convert_row(layout: Layout, raw: Values, columns: Mapping[str, str]) -> Converted:
    """The conversations of one raw row, or why it has none. `columns` maps the layout's names to the source's own.

    Raises DataError naming the column for a missing column, a null or a wrong type.
    """
    known = (*layout.columns, *layout.optional)
    values = {name: raw[columns.get(name, name)] for name in known if columns.get(name, name) in raw}
    for name in layout.columns:
        if name not in values:
            theirs = columns.get(name, name)
            raise DataError(
                f"column '{theirs}': missing. Columns there: {', '.join(map(str, raw)) or 'none'}. This layout needs "
                f"{', '.join(layout.columns)}; rename with columns: {{{name}: THEIR_NAME}}"
            )
    return layout.convert(values)


def check_columns(layout: Layout, columns: Mapping[str, str], place: str) -> None:
    """Refuse a renaming of a column that the layout does not have."""
    known = (*layout.columns, *layout.optional)
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise DataError(
            f"{place}.columns: {', '.join(unknown)}: this layout has no such column. Its columns: {', '.join(known)}."
        )


def _text(values: Values, name: str) -> str:
    value = values[name]
    if isinstance(value, str):
        return value
    if value is None:
        raise DataError(f"column '{name}': null, expected text")
    raise DataError(f"column '{name}': {type(value).__name__} ({str(value)[:40]}), expected text")


def _optional(values: Values, *names: str) -> str:
    """The first of `names` that is there and not null; a number is taken as its text."""
    return next((str(values[name]).strip() for name in names if values.get(name) is not None), "")


def _pair(question: str, answer: str, **facts: Any) -> list[Conversation]:
    return [Conversation(id="", messages=(Message("user", question), Message("assistant", answer)), **facts)]


# MedQuAD -------------------------------------------------------------------------------------------------------------


def _medquad_xml(values: Values) -> Converted:
    return _medquad(values, _text(values, "focus").strip())


def _medquad_csv(values: Values) -> Converted:
    question = _text(values, "Question")
    facts = {"question": question, "answer": values["Answer"], "question_type": values.get("qtype")}
    return _medquad(facts, wording.medquad_topic(question))


def _medquad(values: Values, topic: str) -> Converted:
    question = wording.one_question_mark(_text(values, "question"))
    answer = wording.bullets_on_lines(_text(values, "answer"))
    facts = {name: _optional(values, name) for name in ("question_type", "url")}
    return _pair(question, answer, topic=topic, **facts)


# Question and answer in columns --------------------------------------------------------------------------------------


def _flashcards(values: Values) -> Converted:
    """Alpaca's columns: the instruction is the question where `input` is empty, and precedes it where it says more."""
    instruction, given = _text(values, "instruction").strip(), _optional(values, "input")
    if not given:
        question = instruction
    elif not instruction or wording.is_general_instruction(instruction):
        question = given
    else:
        question = f"{instruction}\n\n{given}"
    return _pair(question, _text(values, "output"), topic=wording.flashcard_term(question))


def _labelled_answers(values: Values) -> Converted:
    label = str(values["label"]).strip()
    if label in ("-1", "-1.0"):
        return WRONG_ANSWER
    if label not in ("1", "1.0"):
        raise DataError(f"column 'label': {label!r}, expected 1 (right answer) or -1 (wrong answer)")
    return _pair(_text(values, "short_question"), _text(values, "short_answer"))


_QUESTION_MARK = re.compile(r"^q\s*[.:]\s*", re.IGNORECASE)


def _patient_doctor(values: Values) -> Converted:
    """`Description` is a one-line summary of the patient's question (the topic), or a code such as GENHX (the type)."""
    description = _QUESTION_MARK.sub("", _optional(values, "Description"))
    is_summary = len(description.split()) > 2
    return _pair(
        _text(values, "Patient"),
        _text(values, "Doctor"),
        topic=description if is_summary else "",
        question_type="" if is_summary else description,
    )


def _question_answer(values: Values) -> Converted:
    facts: dict[str, Any] = {name: _optional(values, name) for name in ("topic", "question_type", "url")}
    licence = _optional(values, "licence", "license")
    (pair,) = _pair(_text(values, "question"), _text(values, "answer"), licence=licence, **facts)
    return [replace(pair, references=_texts(values, "references"), must_have=_texts(values, "must_have"))]


def _texts(values: Values, name: str) -> tuple[str, ...]:
    """A list of texts; in a table, a cell that holds one as JSON, or a single text."""
    value = values.get(name) or []
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"column '{name}': {str(value)[:40]!r}, expected a list of texts")
    return tuple(item.strip() for item in value if item.strip())


# Many turns, written library, plain text -----------------------------------------------------------------------------

ROLES = ("system", "user", "assistant")


def _chat(values: Values) -> Converted:
    """Cut to what can be learnt from: from the first user turn to the last assistant turn, a system turn kept in front.

    Turns of one speaker in a row become one, since most chat templates insist that speakers alternate.
    """
    items = values["messages"]
    if not isinstance(items, list):
        raise DataError(f"column 'messages': {type(items).__name__}, expected a list of {{role, content}}")
    if [item.get("role") for item in items if isinstance(item, dict)] == ["text"]:
        return PLAIN_TEXT  # so that the split of a mixture that was read as text and chat can be read as chat alone
    turns = [_turn(item, number) for number, item in enumerate(items, 1)]
    system = [turn for turn in turns[:1] if turn.role == "system"]
    merged: list[Message] = []
    for turn in turns[len(system) :]:
        if turn.role == "system":
            raise DataError("column 'messages': a system turn stands after the first turn; it must come first")
        if merged and merged[-1].role == turn.role:
            merged[-1] = Message(turn.role, f"{merged[-1].content}\n{turn.content}")
        elif merged or turn.role == "user":
            merged.append(turn)
    if not merged:
        return NO_QUESTION
    if merged[-1].role == "user":
        merged.pop()
    if not merged:
        return NO_ANSWER
    facts: dict[str, Any] = {name: _optional(values, name) for name in ("topic", "question_type", "url")}
    return [Conversation(id="", messages=(*system, *merged), licence=_optional(values, "licence", "license"), **facts)]


def _turn(item: Any, number: int) -> Message:
    place = f"column 'messages', turn {number}"
    if not isinstance(item, dict) or "role" not in item or "content" not in item:
        raise DataError(f"{place}: expected an object with role and content")
    if item["role"] not in ROLES:
        raise DataError(f"{place}: role {item['role']!r}, expected {', '.join(ROLES)}")
    if not isinstance(item["content"], str):
        raise DataError(f"{place}: content is {type(item['content']).__name__}, expected text")
    return Message(item["role"], item["content"])


_SECTIONS = (
    ("in_short", ""),
    ("about", ""),
    ("what_to_do", "What you can do"),
    ("see_doctor", "When to see a doctor"),
    ("emergency", "When it is an emergency"),
)


HEADINGS = frozenset(f"{heading}:" for _, heading in _SECTIONS if heading)


def without_headings(text: str) -> str:
    """`text` without the lines that are a heading of the library layout: they are the same in every answer."""
    return "\n".join(line for line in text.split("\n") if line.strip() not in HEADINGS)


def _library(values: Values) -> Converted:
    """One conversation per way of asking; the answer is the entry's sections under their headings."""
    questions, links = values["questions"], values.get("links") or []
    for name, value in (("questions", questions), ("links", links)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"column '{name}': {type(value).__name__}, expected a list of texts")
    bodies = [(heading, _text(values, name).strip()) for name, heading in _SECTIONS if name in values]
    answer = "\n\n".join(f"{heading}:\n{body}" if heading else body for heading, body in bodies if body)
    facts = {"topic": _text(values, "topic"), "url": next(iter(links), "")}
    return [conversation for question in questions for conversation in _pair(question, answer, **facts)]


def _plain_text(values: Values) -> Converted:
    facts: dict[str, Any] = {"topic": _optional(values, "title"), "url": _optional(values, "url")}
    licence = _optional(values, "licence", "license")
    return [Conversation(id="", messages=(Message("text", _text(values, "text")),), licence=licence, **facts)]


_JSON, _TABLES = (".json", ".jsonl"), (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_FACTS = ("topic", "question_type", "url", "licence", "license")

LAYOUTS: dict[str, Layout] = {
    "medquad_xml": Layout(
        ("focus", "question", "answer"),
        ("question_type", "url"),
        (".xml",),
        _medquad_xml,
        '<Document url="..."><Focus>Acne</Focus>... <Question qtype="causes">What causes Acne ?</Question><Answer>...',
        "MedQuAD's own XML: github.com/abachaa/MedQuAD, as a folder or .tar.gz",
        "CC BY 4.0",
    ),
    "medquad_csv": Layout(
        ("Question", "Answer"),
        ("qtype",),
        _TABLES,
        _medquad_csv,
        "causes,What causes Acne ?,Hormone changes ...",
        "MedQuAD as one table: keivalya/MedQuad-MedicalQnADataset",
        "CC BY 4.0",
    ),
    "flashcards": Layout(
        ("instruction", "output"),
        ("input",),
        _TABLES,
        _flashcards,
        '{"instruction": "Answer this question truthfully", "input": "What is a biologic?", "output": "a drug ..."}',
        "the Alpaca family: medalpaca/medical_meadow_medical_flashcards",
    ),
    "labelled_answers": Layout(
        ("short_question", "short_answer", "label"),
        ("tags",),
        _TABLES,
        _labelled_answers,
        "can i take ...,hi thanks ...,['headache'],1",
        "the Kaggle medical chatbot table; label -1 marks an answer to another question",
    ),
    "patient_doctor": Layout(
        ("Patient", "Doctor"),
        ("Description",),
        _TABLES,
        _patient_doctor,
        "Q. What is ...?,Hello doctor ...,Hi. You should ...",
        "ruslanmv/ai-medical-chatbot",
    ),
    "chat": Layout(
        ("messages",),
        _FACTS,
        (*_JSON, ".parquet"),
        _chat,
        '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
        "chat data sets of any origin",
    ),
    "question_answer": Layout(
        ("question", "answer"),
        (*_FACTS, "references", "must_have"),
        _TABLES,
        _question_answer,
        "question,answer,topic",
        "any table; name its columns with `columns`",
    ),
    "library": Layout(
        ("topic", "questions", "in_short"),
        ("about", "what_to_do", "see_doctor", "emergency", "links"),
        _JSON,
        _library,
        '{"topic": "Acne", "questions": ["What is acne?"], "in_short": "...", "about": "...", "what_to_do": "..."}',
        "medtune's written library (path: starter), or your own",
    ),
    "text": Layout(
        ("text",),
        ("title", "url", "licence", "license"),
        (".txt", ".md", *_TABLES),
        _plain_text,
        '{"title": "Asthma", "text": "..."}',
        "plain text for continued pre-training: .txt, .md, or a table",
    ),
}
