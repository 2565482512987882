"""From the sources of `assistant.knowledge` to passages, each with the names and questions that it is found by.

Covered: the written library (a passage per section of an entry), any data layout (MedQuAD: an answer is one passage;
long texts of other layouts are cut), a folder of documents (`documents`). Not covered: reading rows (`data`), the
index (`index`). A passage's id is a hash of its source, its place there and its text: a rebuild gives the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from medtune.data.clean import normalise, normalised, rejection
from medtune.data.convert import LAYOUTS, check_columns, convert_row
from medtune.data.files import local_files
from medtune.data.formats import Row
from medtune.data.progress import bar
from medtune.data.sources import local_path, pinned, read_rows
from medtune.errors import DataError
from medtune.knowledge.documents import read_documents
from medtune.recipe import CleanSection, Source
from medtune.recipe_assistant import KnowledgeSource
from medtune.run_dir import hash_of
from medtune.types import Conversation, Passage

DOCUMENTS = "documents"
WORDS = 180  # of a passage that is cut from a longer text; a sentence is never cut
STARTER_LICENCE = "Apache-2.0"
LIBRARY_SECTIONS = {
    "in_short": ("In short", "information"),
    "about": ("About", "information"),
    "what_to_do": ("What you can do", "treatment"),
    "see_doctor": ("When to see a doctor", "see a doctor"),
    "emergency": ("When it is an emergency", "emergency"),
}
LIBRARY_FACTS = ("topic", "synonyms", "lay_words", "questions", "links", "reviewed", "reviewed_on")
_CELL = re.compile(r"\d ?%|\w - (?=[A-Z])")
_LINK = re.compile(r"https?://|Genetic Testing Registry|MedlinePlus Encyclopedia:|These resources ")
_TABLE = "The Human Phenotype Ontology provides the following list"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage and what it is found by besides its text.

    `names` are those of its subject (the title among them), `questions` what it answers, `kind` the type of question
    (`treatment`, `symptoms`, ...: MedQuAD's words), empty where the source does not say.
    """

    passage: Passage
    names: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    kind: str = ""


def read_entries(sources: Sequence[KnowledgeSource]) -> list[Entry]:
    """The passages of all `sources` in a fixed order; a text that stands twice under one title is taken once.

    Raises DataError for a source that cannot be read, has too many broken rows, or holds no text.
    """
    entries: dict[str, Entry] = {}
    texts = set()
    for position, source in enumerate(sources):
        before = len(entries)
        with bar(f"reading {source.path}") as advance:
            for entry in _entries(source, f"assistant.knowledge.sources.{position}"):
                advance()
                text = (entry.passage.title, entry.passage.section, entry.passage.text)
                if text not in texts:
                    texts.add(text)
                    entries[entry.passage.id] = entry
        if len(entries) == before:
            raise DataError(
                f"assistant.knowledge.sources.{position} ({source.path}, layout {source.layout}): no passage in it "
                "that is not in an earlier source. Correct path or layout, or leave the source out."
            )
    return list(entries.values())


def source_files(sources: Iterable[KnowledgeSource]) -> list[tuple[str, int, int]]:
    """Name, size and time of each local file of `sources`: what tells that a source has changed."""
    found = []
    for source in sources:
        path = local_path(_data_source(source))
        for file in local_files(path) if path is not None and path.exists() else []:
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return found


def _data_source(source: KnowledgeSource) -> Source:
    layout = "text" if source.layout == DOCUMENTS else source.layout
    if layout not in LAYOUTS:
        raise DataError(
            f"assistant.knowledge.sources ({source.path}): layout {layout!r}. Expected {', '.join(LAYOUTS)} or "
            f"{DOCUMENTS}."
        )
    return Source.model_validate(
        {"layout": layout, "path": source.path, "columns": source.columns, "licence": source.licence}
    )


def _entries(source: KnowledgeSource, place: str) -> Iterator[Entry]:
    data_source = _data_source(source)
    if source.layout == DOCUMENTS:
        path = local_path(data_source)
        if path is None:
            raise DataError(f"{place}: {source.path}: documents are read from a local file or folder.")
        for document in read_documents(path):
            named = replace(document, title=document.title or source.title)
            yield from _cut_up(source, named.file, Passage("", named.text, named.title, named.section), ())
    else:
        yield from _from_layout(source, data_source, place)


def _from_layout(source: KnowledgeSource, data_source: Source, place: str) -> Iterator[Entry]:
    """Rows through the data stage's converters. More than 1 % broken rows, or none at all, are refused."""
    layout = LAYOUTS[source.layout]
    check_columns(layout, source.columns, place)
    clean, problems, rows = CleanSection(), list[str](), 0
    for row in read_rows(pinned(data_source)):
        rows += 1
        try:
            if row.problem:
                raise DataError(row.problem)
            converted = convert_row(layout, row.values, source.columns)
        except DataError as error:
            problems.append(f"  {row.file}, row {row.number}: {error}")
            continue
        if isinstance(converted, str):
            continue
        kept = [c for c in map(normalised, converted) if not rejection(c, clean)]
        if source.layout == "library":
            yield from _library(source, row) if kept else ()
        else:
            for conversation in kept:
                yield from _conversation(source, row, conversation, layout.licence)
    if len(problems) > clean.max_bad_rows * rows:
        examples = "\n".join(problems[:5])
        raise DataError(
            f"{place} ({source.path}, layout {source.layout}): {len(problems)} of {rows} rows are broken.\n{examples}"
            "\nMend them, or choose another layout or columns."
        )


def _library(source: KnowledgeSource, row: Row) -> Iterator[Entry]:
    """A passage per section. All are found by the entry's names and ways of asking."""
    values = {name: row.values.get(source.columns.get(name, name)) for name in (*LIBRARY_FACTS, *LIBRARY_SECTIONS)}
    title = str(values["topic"])
    names = (title, *_texts(values.get("synonyms")))
    asked = (*_texts(values.get("lay_words")), *_texts(values.get("questions")))  # `hurts all over` names nothing
    starter = STARTER_LICENCE if source.path == "starter" else ""
    for name, (heading, kind) in LIBRARY_SECTIONS.items():
        text = normalise(str(values[name] or ""))
        if text:
            passage = Passage(
                id=hash_of(_name(source), title, name, text),
                text=text,
                title=title,
                section=heading,
                url=next(iter(_texts(values.get("links"))), source.url),
                date=str(values.get("reviewed_on") or source.date),
                licence=source.licence or starter,
                source=source.path,
                reviewed=values.get("reviewed") is True,
            )
            yield Entry(passage, names, asked, kind)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _conversation(source: KnowledgeSource, row: Row, conversation: Conversation, licence: str) -> Iterator[Entry]:
    """An answer under its topic and question; a plain text under its title."""
    question = " ".join(conversation.question.split())
    passage = Passage(
        "",
        conversation.answer,
        conversation.topic or source.title or question,
        question,
        url=conversation.url,
        licence=conversation.licence or source.licence or licence,
    )
    names = (passage.title, *_texts(row.values.get("synonyms")))
    file = row.file if source.layout == "medquad_xml" else PurePath(row.file).name
    for entry in _cut_up(source, f"{file}:{row.number}", passage, names):
        yield replace(entry, questions=(question,) if question else (), kind=conversation.question_type)


def _cut_up(source: KnowledgeSource, place: str, whole: Passage, names: tuple[str, ...]) -> Iterator[Entry]:
    """`whole` as passages with all their facts. MedQuAD's answers stay whole: they are what its users judge."""
    pieces = [whole.text] if source.layout.startswith("medquad") else cut(whole.text)
    for piece in pieces:
        passage = replace(
            whole,
            id=hash_of(_name(source), place, whole.title, whole.section, piece),
            text=piece,
            url=whole.url or source.url,
            date=whole.date or source.date,
            licence=whole.licence or source.licence,
            source=source.path,
        )
        yield Entry(passage, names or (passage.title,))


def _name(source: KnowledgeSource) -> str:
    """The source's own name: a folder that was moved keeps its passages' ids."""
    return PurePath(source.path).name


def is_prose(text: str) -> bool:
    """False for what answers nobody by itself: lists of links and tables of percentages, MedQuAD's above all."""
    before, has_table, _ = text.partition(_TABLE)
    if has_table:
        return len(before.split()) > 40
    length = len(text.split())
    return len(_CELL.findall(text)) <= max(3, length / 30) and len(_LINK.findall(text)) <= max(1, length / 40)


def cut(text: str, most: int = WORDS) -> list[str]:
    """`text` in pieces of at most `most` words where sentences allow it, cut between paragraphs if possible.

    Pieces are filled up to an equal length, so that no short rest is left over.
    """
    total = len(text.split())
    if total <= most * 1.25:
        return [text] if total else []
    target = total / -(-total // most)
    pieces: list[str] = []
    words = 0
    for paragraph in re.split(r"\n\s*\n", text):
        for number, sentence in enumerate(_SENTENCE_END.split(paragraph)):
            length = len(sentence.split())
            if pieces and (words + length / 2 <= target or not length):
                pieces[-1] += ("\n\n" if number == 0 else " ") + sentence
                words += length
            else:
                pieces.append(sentence)
                words = length
    return [piece.strip() for piece in pieces if piece.strip()]
