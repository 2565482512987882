from __future__ import annotations

import pytest

from medtune.assistant.query import query_of
from medtune.types import Message


def talk(*turns: str) -> list[Message]:
    return [Message("assistant" if at % 2 else "user", text) for at, text in enumerate(turns)]


SHINGLES = "I have shingles on my back, what helps?"


@pytest.mark.parametrize(
    "follow", ["is it contagious?", "And for children?", "why?", "what about that?", "¿es contagioso eso?"]
)
def test_a_follow_up_is_searched_with_its_topic(follow: str) -> None:
    assert query_of(talk(SHINGLES, "Rest.", follow)) == f"{SHINGLES}\n{follow}"


@pytest.mark.parametrize("follow", ["How is gout treated in older people?", "What are the signs of a stroke?"])
def test_a_new_topic_is_searched_alone(follow: str) -> None:
    assert query_of(talk(SHINGLES, "Rest.", follow)) == follow


def test_a_chain_of_follow_ups_reaches_back_to_its_topic() -> None:
    assert query_of(talk(SHINGLES, "Rest.", "is it contagious?", "Yes.", "and to babies?")).startswith(SHINGLES)


def test_nothing_asked_is_nothing_searched() -> None:
    assert query_of([]) == ""
    assert query_of([Message("assistant", "Hello")]) == ""
