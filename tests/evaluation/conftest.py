"""Conversations and records for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medtune.types import Completion, Conversation, Likelihood, Message, Record


def _conversation(number: int, question: str = "", answer: str = "", group: str = "") -> Conversation:
    asked = Message("user", question or f"What is disease {number} ?")
    return Conversation(f"c{number}", (asked, Message("assistant", answer or f"It is {number}.")), group=group)


def _record(number: int, score: float = 0.5, group: str = "", **changes: object) -> Record:
    values: dict[str, object] = {
        "system": "base",
        "id": f"c{number}",
        "group": group,
        "question": f"question {number}",
        "reference": "one two three four",
        "completion": Completion("one two", "stop", 3, 2, 0.1),
        "status": "scored",
        "likelihood": Likelihood(8.0, 4, 18),
        "scores": dict.fromkeys(("rouge_1", "rouge_2", "rouge_l", "rouge_lsum"), score),
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def conversation() -> Callable[..., Conversation]:
    """Makes a conversation of one question and one answer: conversation(number, question, answer, group)."""
    return _conversation


@pytest.fixture
def record() -> Callable[..., Record]:
    """Makes a scored record: record(number, score, group, field=value, ...)."""
    return _record
