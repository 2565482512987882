"""Messages with labels: the written examples that ship, files of a user, and the public files for training.

Covered: JSON lines with `text` or `messages`, an `id`, and any of the labels `emergency`, `crisis`, `in_scope`,
`injection`; the public files that training reads beside the written examples.
Not covered: scoring (`guard_report`), fitting (`training`).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from medtune.errors import DataError
from medtune.types import Message, Role

EXAMPLES = Path(__file__).parent / "examples"
LABELS = {"emergency": "emergency", "crisis": "crisis", "in_scope": "scope", "injection": "injection"}
"""Label of a line, and the guard it is about."""

_ROLES = tuple(role for role in get_args(Role) if role != "text")
_PLACEHOLDER = re.compile(r"\[(?:NAME|LOCATION|CONTACT|DATE|AGE|PROFESSION|ID)\]")


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation that ends with a user turn; `labels` maps `emergency`, `crisis`, `in_scope` to what is true."""

    id: str
    messages: tuple[Message, ...]
    labels: Mapping[str, bool]
    kind: str = ""

    @property
    def text(self) -> str:
        """The newest user turn."""
        return self.messages[-1].content


def read(path: Path) -> list[Case]:
    """The cases of a JSON-lines file. Raises DataError, with file and line for a line that is no case."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected a file of JSON lines in UTF-8.") from error
    cases = [_case(line, f"{path}, line {n}", str(n)) for n, line in enumerate(lines, 1) if line.strip()]
    if not cases:
        raise DataError(f"{path}: holds no line. Expected JSON lines with `text` or `messages`.")
    return cases


def _case(line: str, where: str, default_id: str) -> Case:
    expected = 'Expected {"text": "..."} or {"messages": [{"role": "user", "content": "..."}]}.'
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: no JSON ({error}). {expected}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, no object. {expected}")
    labels = {name: row[name] for name in LABELS if row.get(name) is not None}
    if wrong := [name for name, value in labels.items() if not isinstance(value, bool)]:
        raise DataError(f"{where}: `{wrong[0]}` is {labels[wrong[0]]!r}. Expected true or false.")
    return Case(str(row.get("id", default_id)), _messages(row, where, expected), labels, str(row.get("kind", "")))


def _messages(row: Mapping[str, Any], where: str, expected: str) -> tuple[Message, ...]:
    turns = row.get("messages")
    if isinstance(row.get("text"), str) and turns is None:
        turns = [{"role": "user", "content": row["text"]}]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{where}: neither a `text` nor `messages` (found {', '.join(row) or 'nothing'}). {expected}")
    messages = []
    for turn in turns:
        if turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            raise DataError(
                f"{where}: the turn {turn!r} is none. A turn has a `role` ({', '.join(_ROLES)}) and `content`."
            )
        messages.append(Message(cast(Role, turn["role"]), turn["content"]))
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages or not messages[-1].content.strip():
        raise DataError(f"{where}: the last user turn is missing or empty. {expected}")
    return tuple(messages)


# The public files, in the layout they are downloaded in ---------------------------------------------------------------


def patients(folder: Path) -> list[tuple[str, str]]:
    """MeQSum: real messages to the US National Library of Medicine, each with an expert's one-line question."""
    rows = _json_lines(folder / "consumer_questions_meqsum.jsonl.gz")
    return [(" ".join(_PLACEHOLDER.sub(" ", row["message"]).split()), row["question"]) for row in rows]


def dialogues(folder: Path, words: int = 15) -> list[str]:
    """MTS-Dialog: what the patient says in one visit (up to 90 words), where that is at least `words` words."""
    rows = _json_lines(folder / "dialogues_mts.jsonl.gz")
    told = [" ".join(turn["content"] for turn in row["messages"] if turn["role"] == "user") for row in rows]
    return [" ".join(text.split()[:90]) for text in told if len(text.split()) >= words]


def encyclopaedia(folder: Path, most: int = 800) -> list[str]:
    """MedQuAD: up to `most` different questions, evenly spread over the file."""
    path = folder / "medquad.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            questions = list(dict.fromkeys(" ".join(row["Question"].split()) for row in csv.DictReader(file)))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise _missing(path, error) from error
    return questions[:: max(1, len(questions) // most)][:most]


def _json_lines(path: Path) -> Sequence[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return list(_rows(file))
    except (OSError, ValueError) as error:
        raise _missing(path, error) from error


def _rows(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        yield json.loads(line)


def _missing(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error}). Training the guards needs the public files MeQSum, MTS-Dialog and MedQuAD "
        "under the names consumer_questions_meqsum.jsonl.gz, dialogues_mts.jsonl.gz and medquad.csv.gz; "
        "give their folder with --data."
    )
