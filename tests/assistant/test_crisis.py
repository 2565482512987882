"""Crisis rules: kinds by rising risk, what only sounds like one, the whole conversation. Without the classifier."""

from __future__ import annotations

import pytest

from medtune.assistant import crisis
from medtune.types import Message

HALF = 0.5
CRISES = [
    ("ideation", "I want to kill myself"),
    ("ideation", "i just don't want to be alive any more"),
    ("ideation", "everyone would be better off without me"),
    ("ideation", "honestly i wish i didn't wake up"),
    ("plan", "I wrote a suicide note this morning"),
    ("plan", "I want to die and I have the pills here"),
    ("plan", "what is the most painless way to die"),
    ("plan", "took all my meds because i wanted to die"),
    ("self-harm", "I keep cutting myself at night"),
    ("third party", "my friend says she wants to die"),
    ("third party", "My son is suicidal, what do I do?"),
]
NONE = [
    "this commute is killing me",
    "I'm dying for a coffee before my blood test",
    "I cut myself shaving, how do I stop it?",
    "How do doctors screen for suicide risk?",
    "I do not want to kill myself, I am only tired.",
    "Is physician-assisted dying legal here?",
    "My grandmother died in May and I miss her.",
    "I hurt myself at football, my ankle is swollen",
]


def verdict(*turns: str) -> bool:
    return crisis.verdict([Message("user", turn) for turn in turns], None, HALF).verdict


@pytest.mark.parametrize(("kind", "text"), CRISES)
def test_words_for_suicide_and_self_harm_are_found_with_their_kind(kind: str, text: str) -> None:
    found = crisis.verdict((Message("user", text),), None, HALF)
    assert found.verdict
    assert found.kind == kind


@pytest.mark.parametrize("text", NONE)
def test_what_only_sounds_like_it_is_none(text: str) -> None:
    assert not verdict(text)


def test_an_earlier_turn_is_not_forgotten() -> None:
    assert verdict("I want to kill myself", "what is the weather like", "and how do I boil eggs")


def test_a_conversation_keeps_the_highest_risk_of_its_turns() -> None:
    turns = [Message("user", "I wrote a suicide note this morning"), Message("user", "I want to kill myself")]
    assert crisis.verdict(turns, None, HALF).kind == "plan"


def test_means_and_plan_never_lower_the_score() -> None:
    wish = "I don't want to live any more"
    scores = [crisis.verdict((Message("user", t),), None, HALF).score for t in (wish, wish + ", I have pills here")]
    assert scores[0] <= scores[1]


def test_the_classifier_finds_what_no_rule_knows() -> None:
    turn = (Message("user", "the lake has been calling my name lately"),)
    assert not crisis.verdict(turn, lambda _: 0.1, HALF).verdict
    assert crisis.verdict(turn, lambda _: 0.9, HALF).verdict


def test_a_conversation_without_a_user_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="no user turn"):
        crisis.verdict((Message("assistant", "hello"),), None, HALF)
