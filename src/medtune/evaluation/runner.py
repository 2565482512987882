"""Asks a system the test questions and writes down every answer as it comes.

Covered: records.jsonl, resumable record by record; failed requests, which are never graded; answers graded again, not
asked again, where the scores have changed; progress. Not covered: who answers (`systems`), what the records add up to
(`summary`).

A line is one record and the fingerprint of the system and question that it belongs to. While a run goes on, a record
may stand twice, first with its answer and then with its likelihood too; the last line counts. A line that does not
parse (the last one, after a kill) is forgotten and its question asked again. At the end the file is rewritten, one
line per record.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medtune.evaluation import metrics
from medtune.evaluation.systems import System
from medtune.run_dir import hash_of, write_lines
from medtune.types import Completion, Conversation, Likelihood, Record, Status

SCORING = 3  # raise it when the scores in a record change their meaning: older answers are then graded again


class Advance(Protocol):
    """Tells the progress bar of one more item, and of the tokens that it took."""

    def __call__(self, tokens: int = 0) -> None: ...


class RecordFile:
    """The records of one run by (system, conversation id), on disk as they are added."""

    def __init__(self, path: Path, encoder: str = "") -> None:
        """`encoder` is the fingerprint of what measures similarity: with another one answers are graded again."""
        self.path, self.encoder = path, encoder
        self._lines: dict[tuple[str, str], dict[str, Any]] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.split("\n"):  # not splitlines, which also breaks at characters that an answer may hold
            try:
                row = json.loads(line)
                self._lines[row["system"], row["id"]] = row
            except (ValueError, KeyError, TypeError):
                continue
        if text and not text.endswith("\n"):
            self.rewrite()

    def get(self, system: System, conversation: Conversation) -> Record | None:
        """The record of exactly this system and question; None where there is none or it belongs to another model."""
        row = self._lines.get((system.name, conversation.id))
        if row is None or row.get("fingerprint") != _fingerprint(system, conversation):
            return None
        record = record_of(row)
        if row.get("scoring") != self._scoring(conversation):
            record = dataclasses.replace(
                grade(system.name, conversation, record.completion), likelihood=record.likelihood
            )
            self._lines[record.system, record.id] = self._line(system, conversation, record)
        return record

    def add(self, system: System, conversation: Conversation, record: Record) -> None:
        """Append a record and hand it to the operating system, so that it outlives this process."""
        row = self._lines[record.system, record.id] = self._line(system, conversation, record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _line(self, system: System, conversation: Conversation, record: Record) -> dict[str, Any]:
        marks = {"fingerprint": _fingerprint(system, conversation), "scoring": self._scoring(conversation)}
        return {**dataclasses.asdict(record), **marks}

    def _scoring(self, conversation: Conversation) -> str:
        return hash_of(SCORING, self.encoder, conversation.references, conversation.must_have)

    def rewrite(self) -> None:
        """Leave one line per record, in the order in which they were first answered."""
        write_lines(self.path, self._lines.values())


def record_of(row: dict[str, Any]) -> Record:
    """The record that a line of records.jsonl holds."""
    values = {name: value for name, value in row.items() if name not in ("fingerprint", "scoring")}
    values["likelihood"] = row["likelihood"] and Likelihood(**row["likelihood"])
    values["references"] = tuple(row.get("references", ()))
    return Record(**{**values, "completion": Completion(**row["completion"])})


def _fingerprint(system: System, conversation: Conversation) -> str:
    return hash_of(system.fingerprint, [dataclasses.astuple(message) for message in conversation.messages])


def ask(system: System, conversations: Sequence[Conversation], records: RecordFile, batch_size: int) -> list[Record]:
    """Every conversation's record, in their order; only what `records` does not hold yet is asked.

    Failed requests are asked again. A reference whose likelihood is not a number stays unmeasured.
    """
    known = [records.get(system, conversation) for conversation in conversations]
    open_questions = [
        c for c, record in zip(conversations, known, strict=True) if record is None or record.status == "failed"
    ]
    with progress(f"{system.name}: answers", len(open_questions)) as advance:
        for index, completion in system.answers(open_questions, batch_size) if open_questions else ():
            conversation = open_questions[index]
            records.add(system, conversation, grade(system.name, conversation, completion))
            advance(tokens=completion.completion_tokens)
    if system.likelihoods is not None:
        _measure_likelihoods(system, conversations, records, batch_size)
    return [record for c in conversations if (record := records.get(system, c)) is not None]


def _measure_likelihoods(
    system: System, conversations: Sequence[Conversation], records: RecordFile, batch_size: int
) -> None:
    answered = [(c, record) for c in conversations if (record := records.get(system, c)) is not None]
    unmeasured = [(c, record) for c, record in answered if record.likelihood is None]
    if not unmeasured or system.likelihoods is None:
        return
    with progress(f"{system.name}: likelihood", len(unmeasured)) as advance:
        for index, likelihood in system.likelihoods([c for c, _ in unmeasured], batch_size):
            conversation, record = unmeasured[index]
            if math.isfinite(likelihood.nll) and likelihood.tokens and likelihood.bytes:
                records.add(system, conversation, dataclasses.replace(record, likelihood=likelihood))
            advance(tokens=likelihood.tokens)


def grade(system: str, conversation: Conversation, completion: Completion) -> Record:
    """The record of one answer: a failed request has no score, an empty answer scores 0."""
    status: Status = "scored" if completion.text.strip() else "unanswered"
    if completion.finish_reason == "error":
        status = "failed"
    scores = {} if status == "failed" else metrics.scores(conversation, completion.text)
    return Record(
        system,
        conversation.id,
        conversation.group,
        conversation.question,
        conversation.answer,
        completion,
        status,
        None,
        scores,
        conversation.references,
    )


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A progress bar with questions done, tokens/s and time left; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal or not total) as bar:
        task, start, counted = bar.add_task(title, total=total, speed=""), time.perf_counter(), 0

        def advance(tokens: int = 0) -> None:
            nonlocal counted
            counted += tokens
            speed = f"{counted / (time.perf_counter() - start):,.0f} tokens/s" if counted else ""
            bar.update(task, advance=1, speed=speed)

        yield advance
