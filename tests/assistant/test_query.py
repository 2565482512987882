from __future__ import annotations

import pytest

from medtune.assistant.query import find, query_of
from medtune.types import Hit, Message, Passage

SHINGLES = "I have shingles on my back, what helps?"


def talk(*turns: str) -> list[Message]:
    return [Message("assistant" if at % 2 else "user", text) for at, text in enumerate(turns)]


def searched(*turns: str, score: float = 0.0) -> str:
    """What is searched for last, where every search finds something with this probability."""
    asked: list[str] = []

    def search(text: str, k: int) -> list[Hit]:
        asked.append(text)
        return [Hit(Passage(str(k), text, "title"), score)]

    (hit,) = find(search, talk(*turns), 4)
    assert hit.passage.text == asked[-1]
    return asked[-1]


@pytest.mark.parametrize(
    "follow", ["is it contagious?", "And for children?", "why?", "what about that?", "¿es contagioso eso?"]
)
def test_a_follow_up_is_searched_with_its_topic(follow: str) -> None:
    assert searched(SHINGLES, "Rest.", follow) == f"{SHINGLES}\n{follow}"


def test_whether_a_question_stands_alone_is_seen_by_what_it_finds() -> None:
    question = "What should I avoid eating?"
    assert searched(SHINGLES, "Rest.", question, score=0.1).startswith(SHINGLES)
    assert searched(SHINGLES, "Rest.", "How is gout treated?", score=0.9) == "How is gout treated?"
    assert searched(SHINGLES, "Rest.", "What foods are good?", score=0.7).startswith(SHINGLES)
    other = "Can I get a flu shot with an egg allergy?"
    assert searched(SHINGLES, "Rest.", other, score=0.7) == other
    assert searched(SHINGLES, "Rest.", "is it contagious?", score=0.99).startswith(SHINGLES)


def test_a_first_question_is_searched_as_it_is() -> None:
    assert searched("is it contagious?") == "is it contagious?"


def test_a_chain_of_follow_ups_reaches_back_to_its_topic() -> None:
    assert query_of(talk(SHINGLES, "Rest.", "is it contagious?", "Yes.", "and to babies?")).startswith(SHINGLES)
    assert (
        query_of(talk("What is gout?", "A.", SHINGLES, "B.", "is it contagious?")).startswith("What is gout?") is False
    )


def test_nothing_asked_is_nothing_searched() -> None:
    assert find(lambda *_: [], [Message("assistant", "Hello")], 4) == []
    assert query_of([]) == ""
