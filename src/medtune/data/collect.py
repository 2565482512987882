"""The first pass over the sources: convert and clean every row, spool what is kept, count what is not.

Covered: broken rows (skipped and counted, up to `max_bad_rows`), reasons that one row shows by itself. Not covered:
duplicates and the split, which are decided afterwards on the collected features.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from medtune.data import clean
from medtune.data.convert import LAYOUTS, Converted, Layout, check_columns, convert_row
from medtune.data.features import Collector, Features
from medtune.data.formats import Row
from medtune.data.progress import bar
from medtune.data.sources import pinned, read_rows
from medtune.errors import DataError
from medtune.recipe import DataSection, Source
from medtune.types import Conversation, Message

BAD_EXAMPLES = 5


@dataclass(frozen=True)
class Example:
    """One row, for a person to look at."""

    file: str
    row: int
    text: str


@dataclass(frozen=True)
class Dropped:
    """How many were dropped for one reason, and the first of them."""

    count: int
    example: Example


@dataclass
class SourceTally:
    """What one source held."""

    source: Source
    asked_for: str | None
    """The revision that the recipe names; the source itself holds the commit that it resolved to."""
    licences: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    rows: int = 0
    bad_rows: int = 0
    bad_examples: list[Example] = field(default_factory=list)
    conversations: int = 0


@dataclass(frozen=True)
class Collected:
    """The result of the first pass. `dropped` goes from the reason to its count."""

    features: Features
    files: list[str]
    question_types: list[str]
    sources: list[SourceTally]
    dropped: dict[str, Dropped]

    def reasons(self) -> str:
        return ", ".join(f"{dropped.count} {reason}" for reason, dropped in self.dropped.items()) or "none"


def collect(section: DataSection, spool: IO[bytes]) -> Collected:
    """Read all sources; one line per conversation goes to `spool`.

    Raises DataError for a source that cannot be read, has no rows, or has too large a share of broken rows.
    """
    collector = Collector()
    tallies: list[SourceTally] = []
    dropped: dict[str, Dropped] = {}
    for position, source in enumerate(map(pinned, section.sources)):
        layout = LAYOUTS[source.layout]
        check_columns(layout, source.columns, f"data.sources.{position}")
        tally = SourceTally(source, section.sources[position].revision)
        for conversation, row in _conversations(source, layout, tally, dropped):
            conversation = clean.normalised(conversation)
            reason = clean.rejection(conversation, section.clean)
            if reason:
                _count(dropped, reason, Example(row.file, row.number, shortened(conversation)))
                continue
            identity = collector.add(
                conversation, source=position, file=row.file, number=row.number, offset=spool.tell()
            )
            licence = conversation.licence or source.licence or layout.licence
            tally.licences[licence or "not stated"] += 1
            spool.write(_line(conversation, identity, source.path, licence))
            tally.conversations += 1
        _check_bad_rows(tally, section.clean.max_bad_rows, position)
        tallies.append(tally)
    spool.flush()
    return Collected(collector.finish(), list(collector.files), list(collector.question_types), tallies, dropped)


def _conversations(
    source: Source, layout: Layout, tally: SourceTally, dropped: dict[str, Dropped]
) -> Iterator[tuple[Conversation, Row]]:
    """The conversations of a source, each with the row that it comes from; broken and refused rows are counted."""
    with bar(f"reading {source.path}") as advance:
        for row in read_rows(source):
            advance()
            tally.rows += 1
            tally.files.add(row.file)
            problem = row.problem
            converted: Converted = []
            if not problem:
                try:
                    converted = convert_row(layout, row.values, source.columns)
                except DataError as error:
                    problem = str(error)
            if problem:
                tally.bad_rows += 1
                if len(tally.bad_examples) < BAD_EXAMPLES:
                    tally.bad_examples.append(Example(row.file, row.number, problem))
            elif isinstance(converted, str):
                _count(
                    dropped,
                    converted,
                    Example(row.file, row.number, shortened(" | ".join(map(str, row.values.values())))),
                )
            else:
                for conversation in converted:
                    yield conversation, row


def _check_bad_rows(tally: SourceTally, allowed: float, position: int) -> None:
    if not tally.rows:
        raise DataError(f"data.sources.{position} ({tally.source.path}): no rows in it.")
    if tally.bad_rows > allowed * tally.rows:
        examples = "\n".join(f"  {e.file}, row {e.row}: {e.text}" for e in tally.bad_examples)
        raise DataError(
            f"data.sources.{position} ({tally.source.path}, layout {tally.source.layout}): {tally.bad_rows} of "
            f"{tally.rows} rows are broken, more than data.clean.max_bad_rows ({allowed:g}) allows.\n{examples}\n"
            "Mend them, or choose another layout or columns."
        )


def _count(dropped: dict[str, Dropped], reason: str, example: Example) -> None:
    so_far = dropped.get(reason)
    dropped[reason] = Dropped(so_far.count + 1, so_far.example) if so_far else Dropped(1, example)


def shortened(value: Conversation | str, length: int = 120) -> str:
    """A conversation's last turns, or a text, in one short line."""
    if isinstance(value, Conversation):
        value = " | ".join(message.content for message in value.messages[-2:])
    text = " ".join(clean.normalise(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _line(conversation: Conversation, identity: str, source: str, licence: str) -> bytes:
    """The conversation's line without its group, which the split adds."""
    line = {
        "id": identity,
        "messages": [{"role": m.role, "content": m.content} for m in conversation.messages],
        "topic": conversation.topic,
        "question_type": conversation.question_type,
        "source": source,
        "url": conversation.url,
        "licence": licence,
        **{name: value for name in ("references", "must_have") if (value := getattr(conversation, name))},
    }
    return json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n"


def read_at(spool: IO[bytes], offset: int) -> Conversation:
    """The conversation whose spool line begins at `offset`."""
    spool.seek(offset)
    line = json.loads(spool.readline())
    return conversation_of(line)


def conversation_of(line: dict[str, Any]) -> Conversation:
    """The conversation that a line of a split's file, or of the spool, holds."""
    lists = {name: tuple(line.get(name, ())) for name in ("references", "must_have")}
    return Conversation(**{**line, **lists, "messages": tuple(Message(**message) for message in line["messages"])})
