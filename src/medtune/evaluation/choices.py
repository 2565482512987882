"""Questions with options: which option does a model find most likely? MedMCQA, MedQA and PubMedQA layouts.

Covered: options in an order that is shuffled per question, the likelihood of each option's letter as the answer, one
pass per option, Wilson's interval and the paired difference. Not covered: free answers (`runner`), systems without
likelihoods. The order of the options and all likelihoods stand in evaluation/choices.jsonl; what is there is reused.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtune.data.sources import read_rows
from medtune.errors import DataError
from medtune.evaluation.runner import progress
from medtune.evaluation.statistics import Bootstrap, wilson
from medtune.evaluation.systems import System
from medtune.recipe import Source
from medtune.recipe_evaluate import ChoiceTest
from medtune.run_dir import hash_of, write_lines
from medtune.types import Conversation, Message

LETTERS = "ABCDEFGH"
DECISIONS = ("yes", "no", "maybe")


@dataclass(frozen=True, slots=True)
class Choice:
    """One question with its options in the order in which they are shown; `answer` is the right one's index."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int

    def conversations(self) -> list[Conversation]:
        """One conversation per option, with the option's letter as the answer."""
        shown = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False))
        asked = Message("user", f"{self.question}\n\n{shown}\n\nAnswer with the letter of the right option.")
        return [
            Conversation(f"{self.id}/{letter}", (asked, Message("assistant", letter)))
            for letter in LETTERS[: len(self.options)]
        ]


def _medmcqa(row: Mapping[str, Any]) -> tuple[str, Sequence[str], int]:
    return row["question"], [row[f"op{letter}"] for letter in "abcd"], int(row["cop"])


def _medqa(row: Mapping[str, Any]) -> tuple[str, Sequence[str], int]:
    letters = sorted(row["options"])
    return row["question"], [row["options"][letter] for letter in letters], letters.index(row["answer_idx"])


def _pubmedqa(row: Mapping[str, Any]) -> tuple[str, Sequence[str], int]:
    context = " ".join(row["context"]["contexts"])
    return f"{context}\n\n{row['question']}", DECISIONS, DECISIONS.index(row["final_decision"])


LAYOUTS: dict[str, Callable[[Mapping[str, Any]], tuple[str, Sequence[str], int]]] = {
    "medmcqa": _medmcqa, "medqa": _medqa, "pubmedqa": _pubmedqa,
}  # fmt: skip


def read(test: ChoiceTest, seed: int) -> Iterator[Choice]:
    """The questions of one test, options shuffled. Raises DataError naming file and row for one that is not right."""
    source = Source(
        layout="question_answer", path=test.path, revision=test.revision, split=test.split, limit=test.limit
    )
    for row in read_rows(source):
        try:
            question, options, answer = LAYOUTS[test.layout](row.values)
            right, shown = options[answer], list(options)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(
                f"{row.file}, row {row.number}: not a {test.layout} question ({type(error).__name__}: {error}). Its "
                f"columns: {', '.join(map(str, row.values)) or row.problem}."
            ) from error
        if answer < 0:
            raise DataError(f"{row.file}, row {row.number}: no right answer is given. Use a split that has answers.")
        identity = hash_of(question, list(options))
        random.Random(f"{seed}/{identity}").shuffle(shown)
        yield Choice(identity, question, tuple(shown), shown.index(right))


class Choices:
    """The tests of `evaluate.choices`, asked system by system."""

    def __init__(self, tests: Sequence[ChoiceTest], seed: int, path: Path) -> None:
        self.tests = {test.layout: list(read(test, seed)) for test in tests}
        self.path = path
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() and tests else ():
            row = json.loads(line)
            self.rows[row["test"], row["system"], row["id"]] = row

    def ask(self, system: System, batch_size: int) -> None:
        """Measure what is not in the file yet; a system without likelihoods is left out."""
        for name, choices in self.tests.items() if system.likelihoods else ():
            marks = {choice.id: hash_of(system.fingerprint, asdict(choice)) for choice in choices}
            keys = {choice.id: (name, system.name, choice.id) for choice in choices}
            open_ones = [c for c in choices if self.rows.get(keys[c.id], {}).get("fingerprint") != marks[c.id]]
            for choice, nll in zip(open_ones, _likelihoods(system, open_ones, batch_size, name), strict=True):
                chosen = int(np.argmin(nll)) if all(map(math.isfinite, nll)) else None
                self.rows[keys[choice.id]] = {
                    "test": name, "system": system.name, "id": choice.id, "fingerprint": marks[choice.id],
                    "options": list(choice.options), "answer": choice.answer, "chosen": chosen, "nll": nll,
                }  # fmt: skip
        if self.rows:
            write_lines(self.path, self.rows.values())

    def summary(self, bootstrap: Bootstrap) -> dict[str, Any]:
        """{test: {questions, chance, systems: {name: accuracy}, paired}}; a choice that cannot be made is wrong."""
        return {name: self._of(name, choices, bootstrap) for name, choices in self.tests.items()}

    def _of(self, name: str, choices: Sequence[Choice], bootstrap: Bootstrap) -> dict[str, Any]:
        asked = {key[1] for key in self.rows if key[0] == name}
        hits = {
            system: np.array([[self._is_right(name, system, choice), 1.0] for choice in choices]) for system in asked
        }
        groups = [""] * len(choices)
        intervals = {system: wilson(columns, groups) for system, columns in sorted(hits.items())}
        accuracy = {system: asdict(interval) if interval else None for system, interval in intervals.items()}
        paired = None
        if {"base", "tuned"} <= asked:
            found = bootstrap.difference(hits["base"], hits["tuned"], groups, lambda sums: sums[..., 0] / sums[..., 1])
            paired = found and {**asdict(found), "p_holm": found.p}
        chance = float(np.mean([1 / len(choice.options) for choice in choices])) if choices else None
        return {"questions": len(choices), "chance": chance, "systems": accuracy, "paired": paired}

    def _is_right(self, name: str, system: str, choice: Choice) -> float:
        return float(self.rows[name, system, choice.id]["chosen"] == choice.answer)


def _likelihoods(system: System, choices: Sequence[Choice], batch_size: int, name: str) -> Iterator[list[float]]:
    """The options' negative log-likelihoods, question by question."""
    assert system.likelihoods is not None
    asked = [choice.conversations() for choice in choices]
    flat = [conversation for conversations in asked for conversation in conversations]
    found: dict[int, float] = {}
    with progress(f"{system.name}: {name}", len(flat)) as advance:
        for index, likelihood in system.likelihoods(flat, batch_size) if flat else ():
            found[index] = likelihood.nll
            advance(tokens=likelihood.tokens)
    start = 0
    for conversations in asked:
        yield [found[start + i] for i in range(len(conversations))]
        start += len(conversations)
