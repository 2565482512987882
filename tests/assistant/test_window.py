from __future__ import annotations

from collections.abc import Sequence

from medtune.assistant.window import CUT, fit
from medtune.types import Message

HISTORY = [Message("user" if at % 2 == 0 else "assistant", f"turn {at} " + "word " * 8) for at in range(6)]


def count(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def question(passages: int) -> str:
    return " ".join([*("passage " * 10 for _ in range(passages)), "Question: why?"])


def test_everything_stays_where_it_fits() -> None:
    found = fit("Be plain.", HISTORY, question, 2, count, 1000)
    assert [m.role for m in found] == ["system", *(m.role for m in HISTORY), "user"]
    assert found[-1].content == question(2)


def test_the_oldest_turns_go_first_in_pairs() -> None:
    found = fit("Be plain.", HISTORY, question, 2, count, 50)
    assert found[0] == Message("system", "Be plain.")
    assert list(found[1:-1]) == HISTORY[-2:]
    assert found[1].role == "user"
    assert found[-1].content == question(2)


def test_then_the_passages_that_fit_worst() -> None:
    found = fit("Be plain.", HISTORY, question, 4, count, 30)
    assert [m.role for m in found] == ["system", "user"]
    assert found[-1].content == question(2)


def test_at_last_the_middle_of_the_question() -> None:
    long = "My question is this. " + "filler " * 500 + "So what should I do?"
    found = fit("Be plain.", HISTORY, lambda _: long, 1, count, 60)
    assert found[0].content == "Be plain."
    assert found[-1].content.startswith("My question is this.")
    assert found[-1].content.endswith("So what should I do?")
    assert CUT in found[-1].content
    assert count(found) <= 60
