"""Whether a written library is fit to be shown: every problem at once, with its entry and field.

Covered: the schema of an entry, links, readability, duplicates, emergencies, doses, the review's signature; on request,
whether the text was copied (`overlap`). An error must be mended; a warning is worth a look.
Not covered: whether what an entry says is true, which a clinician signs (`reviewed_by`), and whether a link still
answers, since nothing here uses the network.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medtune.data.near import build, matches, word_sets
from medtune.data.sources import read_rows
from medtune.knowledge.overlap import shared_runs
from medtune.knowledge.readability import grade
from medtune.recipe import Source

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Category = Literal[
    "children", "condition", "first_aid", "medicine", "mental_health", "nerves", "older_people", "pregnancy",
    "prevention", "sexual_health", "symptom", "test",
]  # fmt: skip
SECTIONS = ("in_short", "about", "what_to_do", "see_doctor", "emergency")
GRADE = 8.0
NEAR_DUPLICATE = 0.8
COPIED_WORDS = 8
MAY_LACK_EMERGENCY = ("prevention", "test")
PUBLIC = (".gov", ".gov.uk", ".gov.au", ".govt.nz", ".mil", ".nhs.uk", "nhs.uk", "who.int", "paho.org", "europa.eu",
          "canada.ca", "hse.ie", "gob.es", "gob.mx")  # fmt: skip

_ACT = re.compile(r"emergenc|ambulance|urgent|\bcall\b|\bring\b|crisis line|right away|at once", re.IGNORECASE)
_CALL = re.compile(r"emergency|ambulance|\bcall\b", re.IGNORECASE)
_SELF_HARM = re.compile(
    r"suicid|kill|\bdie\b|dying|\bdead\b|\bdeath\b|end\w* \w+ life|life is not worth|self.?(?:harm|injury)|"
    r"(?:harm|hurt)\w* \w*sel(?:f|ves)",
    re.IGNORECASE,
)
_DOSE = re.compile(
    r"\b(?:\d[\d.,]*|half a|one|two|three|four|five|six|eight|ten)(?:\s*(?:-|–|to|or)\s*\d+)?[\s-]*"
    r"(?:mg|mcg|µg|milligrams?|micrograms?|ml|millilit(?:er|re)s?|iu|units?|tablets?|capsules?|puffs?|"
    r"(?:tea|table)spoons?|pills? (?:a|per|every|once|twice))\b",
    re.IGNORECASE,
)


class Entry(BaseModel):
    """One health topic of a library."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    topic: Text
    category: Category
    synonyms: tuple[Text, ...] = ()
    lay_words: tuple[Text, ...] = ()
    questions: Annotated[tuple[Text, ...], Field(min_length=3, max_length=6)]
    in_short: Text
    about: Text
    what_to_do: Text
    see_doctor: Text
    emergency: str = ""
    links: Texts
    reviewed: bool = False
    reviewed_by: Text | None = None
    reviewed_on: date | None = None

    @property
    def text(self) -> str:
        """All sections, as a reader gets them."""
        return "\n".join(text for name in SECTIONS if (text := getattr(self, name)))

    @model_validator(mode="after")
    def _signed_if_reviewed(self) -> Entry:
        signed = self.reviewed_by is not None, self.reviewed_on is not None
        if signed != (self.reviewed, self.reviewed):
            raise ValueError("reviewed: true takes both reviewed_by and reviewed_on; without a review both stay null")
        return self


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong where. `entry` is an id, or `row N` where there is none to name."""

    entry: str
    field: str
    text: str
    is_error: bool = True


def check(path: str, against: Path | None = None) -> tuple[int, list[Problem]]:
    """The number of entries in `path` (a file, or `starter`) and every problem found, in the file's order.

    `against` is a folder of texts that the library must not have copied from. Raises DataError for a file that cannot
    be read at all.
    """
    problems: list[Problem] = []
    entries: list[Entry] = []
    rows = 0
    for row in read_rows(Source(layout="library", path=path)):
        rows += 1
        if row.problem:
            problems.append(Problem(f"row {row.number}", "", row.problem))
            continue
        name = str(row.values.get("id") or f"row {row.number}")
        try:
            entries.append(Entry.model_validate_json(json.dumps(dict(row.values))))
        except ValidationError as error:
            problems += [Problem(name, *_told(item["loc"], item["msg"])) for item in error.errors()]
    for entry in entries:
        problems += _entry_problems(entry)
    problems += [*_repeated(entries), *_near_duplicates(entries)]
    if against is not None:
        problems += _copied(entries, against)
    return rows, problems


def _told(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    """The field and the message of one of pydantic's errors."""
    field = ".".join(map(str, location)) or "reviewed"
    categories = f": {', '.join(get_args(Category))}" if field == "category" and "required" in message else ""
    return field, message.removeprefix("Value error, ") + categories


def _entry_problems(entry: Entry) -> Iterator[Problem]:
    for link in entry.links:
        yield from _link_problems(entry.id, link)
    measured = grade(entry.text)
    if measured > GRADE:
        yield Problem(
            entry.id, "text", f"reads at grade {measured:.1f}, allowed is {GRADE:g}: shorter sentences, words"
        )
    for name in ("questions", *SECTIONS):
        value = getattr(entry, name)
        if found := _DOSE.search(value if isinstance(value, str) else "\n".join(value)):
            yield Problem(entry.id, name, f"gives a dose ({found[0]!r}); only a prescriber knows a person's own")
    yield from _emergency_problems(entry)
    if entry.reviewed_on and entry.reviewed_on > date.today():
        yield Problem(entry.id, "reviewed_on", f"{entry.reviewed_on} lies in the future")


def _link_problems(name: str, link: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or "." not in host or re.search(r"\s", link):
        yield Problem(name, "links", f"{link}: not a well-formed http(s) address")
    elif not any(host == ending.lstrip(".") or host.endswith("." + ending.lstrip(".")) for ending in PUBLIC):
        text = f"{host} is not among the public institutions known here ({', '.join(PUBLIC)})"
        yield Problem(name, "links", text, is_error=False)


def _emergency_problems(entry: Entry) -> Iterator[Problem]:
    text = entry.emergency.strip()
    if not text:
        if entry.category not in MAY_LACK_EMERGENCY:
            yield Problem(entry.id, "emergency", f"empty; every {entry.category} can become one, so say when")
    elif not _ACT.search(text):
        yield Problem(entry.id, "emergency", "does not say what to do: call the emergency number, an ambulance, urgent")
    elif entry.category == "first_aid" and not _CALL.search(text):
        yield Problem(entry.id, "emergency", "first aid must say when to call the emergency number")
    elif entry.category == "mental_health" and not _SELF_HARM.search(text):
        yield Problem(entry.id, "emergency", "a mental_health topic must name thoughts of suicide or self-harm")


def _repeated(entries: Sequence[Entry]) -> Iterator[Problem]:
    """Ids, topics and questions that stand twice; a topic that another entry names as its synonym is a warning."""
    for field in ("id", "topic", "questions"):
        owners: dict[str, str] = {}
        for entry in entries:
            value = getattr(entry, field)
            for text in (value,) if isinstance(value, str) else value:
                other = owners.setdefault(_folded(text), entry.id)
                if other != entry.id or (field == "id" and entry is not _first(entries, entry.id)):
                    yield Problem(entry.id, field, f"{text!r} stands in {other} too")
    synonyms: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for text in entry.synonyms:
            synonyms[_folded(text)].append(entry.id)
    for entry in entries:
        for other in synonyms[_folded(entry.topic)]:
            if other != entry.id:
                text = f"{entry.topic!r} is a synonym in {other} too: is it one topic or two?"
                yield Problem(entry.id, "topic", text, is_error=False)


def _first(entries: Sequence[Entry], name: str) -> Entry:
    return next(entry for entry in entries if entry.id == name)


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _near_duplicates(entries: Sequence[Entry]) -> Iterator[Problem]:
    index = build(word_sets(entry.text for entry in entries), NEAR_DUPLICATE)
    for row, near in matches(index, np.arange(len(entries))):
        for other in sorted(near[near < row].tolist()):
            yield Problem(entries[row].id, "text", f"nearly the same words as {entries[other].id}")


def _copied(entries: Sequence[Entry], folder: Path) -> Iterator[Problem]:
    """Runs of words that also stand in `folder`; names and the entry's own terms are everybody's."""
    pieces = [
        (entry, name, text)
        for entry in entries
        for name in ("questions", *SECTIONS)
        for text in (entry.questions if name == "questions" else (getattr(entry, name),))
    ]
    for number, run, file in shared_runs([text for _, _, text in pieces], folder, COPIED_WORDS):
        entry, name, _ = pieces[number]
        terms = [_folded(term) for term in (entry.topic, *entry.synonyms, *entry.lay_words)]
        if not _is_name(run) and not any(_folded(run) in term for term in terms):
            yield Problem(entry.id, name, f"{run!r} stands in {file} word for word")


def _is_name(run: str) -> bool:
    """Whether a run of words is a name, such as an institution's: every word but the small ones is capitalised."""
    words = [word for word in run.split() if word.casefold() not in ("of", "the", "and", "for", "in", "on", "to", "a")]
    return all(word[:1].isupper() for word in words)


def show(path: str, entries: int, problems: Sequence[Problem]) -> None:
    """Print the problems as a table, errors first, and what they come to."""
    console = Console()
    errors = sum(problem.is_error for problem in problems)
    if problems:
        table = Table("", "entry", "field", "problem")
        for problem in sorted(problems, key=lambda problem: not problem.is_error):
            kind = "[red]error[/]" if problem.is_error else "[yellow]warning[/]"
            table.add_row(kind, *map(escape, (problem.entry, problem.field, problem.text)))
        console.print(table)
    summary = f"{path}: {entries} entries, {errors} errors, {len(problems) - errors} warnings"
    console.print(summary, style="red" if errors else "green", markup=False, highlight=False)
