"""Rules, numbers, clauses: who tells of an emergency now, who asks, who remembers. The classifier is left out here."""

from __future__ import annotations

import pytest

from medtune.assistant import clauses, emergency, vitals
from medtune.types import Message

HALF = 0.5
NOW = [  # a rule alone must see these
    ("heart attack", "he's clutching his chest, the pressure won't go and he is grey and sweating"),
    ("heart attack", "Crushing pain in my chest and left arm since ten minutes, probably nothing"),
    ("stroke", "Her mouth is drooping on one side and she can't lift her left arm"),
    ("stroke", "he woke up and his speech is slurred and the right hand won't work"),
    ("anaphylaxis", "ate a peanut, my throat is closing and I have hives"),
    ("sepsis", "Day 8 after chemo and I have a fever of 38.6"),
    ("unconscious", "dad is on the floor and won't wake up, lips are blue"),
    ("seizure", "the seizure has been going for 7 minutes"),
    ("meningitis", "fever, stiff neck, and the light hurts his eyes"),
    ("spine", "my back went out and I can't feel when I pee, numb between my legs"),
    ("bleeding", "cut off my fingertip with the saw"),
    ("breathing", "my oxygen is 84 and I feel ok"),
    ("sick infant", "our baby is 5 weeks old, temperature 38.4, otherwise happy"),
    ("poisoning", "I took 25 tylenol"),
    ("diabetic", "my sugar reads 38"),
    ("brain bleed", "worst headache of my life, came on in seconds, it struck the back of my head"),
]
NOT_NOW = [
    "What are the signs of a stroke?",
    "how do I know if someone has a heart attack",
    "I had a stroke in 2010 with slurred speech and a drooping face.",
    "When I was a child I had a seizure that lasted 10 minutes.",
    "My grandmother died of a heart attack with crushing chest pain years ago.",
    "No chest pain, no sweating, no shortness of breath, just tired.",
    "In my novel the hero is unresponsive and not breathing. Is that plausible?",
    "EMT exam: a patient is unresponsive with blue lips. First action?",
    "What if my baby ever stops breathing?",
    "I keep waiting for my throat to close up after the wasp sting.",
    "sodium intake: my mother is 96 years old and eats little salt",
    "I take 20meq of potassium daily for my cramps",
    "We talked about amputation of my father's leg last year.",
    "my blood pressure was 128/82 and my pulse 64",
    "glucose 118 fasting, is that prediabetes?",
]


def weight(text: str) -> float:
    return emergency.find(text).weight


@pytest.mark.parametrize(("kind", "text"), NOW)
def test_what_is_told_as_happening_fires_a_strong_rule(kind: str, text: str) -> None:
    found = emergency.find(text)
    assert found.weight >= 0.8
    assert found.kind == kind


@pytest.mark.parametrize("text", NOT_NOW)
def test_what_is_asked_remembered_denied_or_invented_does_not(text: str) -> None:
    assert weight(text) < 0.7


@pytest.mark.parametrize(
    "slip", ["cant breath, lips r blue", "CAN'T BREATHE, LIPS ARE BLUE", "he cant brethe n his lips r blue"]
)
def test_misspelt_and_shouted_messages_are_read_alike(slip: str) -> None:
    assert weight(slip) == 1.0


def test_signs_far_apart_in_a_long_message_are_no_rule_together() -> None:
    near = "There is pressure in my chest and I am sweating."
    far = "There is pressure in my chest. " + "We moved house and painted the walls. " * 12 + "I am sweating."
    assert weight(near) == 1.0
    assert weight(far) < 1.0


def test_every_user_turn_counts_and_the_assistants_do_not() -> None:
    told = (Message("user", "my throat is closing, I have hives, I ate nuts"), Message("assistant", "Since when?"))
    later = (*told, Message("user", "ten minutes"))
    assert emergency.verdict(later, None, HALF).verdict
    quoted = (Message("user", "hello"), Message("assistant", "Is your throat closing, do you have hives?"))
    assert not emergency.verdict((*quoted, Message("user", "what is that")), None, HALF).verdict


def test_signs_spread_over_turns_are_read_together() -> None:
    turns = [Message("user", "there is pressure in my chest"), Message("user", "and I am sweating a lot")]
    apart = max(weight(turn.content) for turn in turns)
    assert apart < 1.0
    assert emergency.verdict(turns, None, HALF).score == emergency.CERTAIN


def test_the_classifier_decides_where_no_rule_does() -> None:
    turn = (Message("user", "something is not right with pa"),)
    assert not emergency.verdict(turn, lambda _: 0.1, HALF).verdict
    found = emergency.verdict(turn, lambda _: 0.9, HALF)
    assert found.verdict
    assert found.reason == "worded like an emergency"


def test_a_rule_raises_the_classifiers_score_and_a_mere_question_lowers_it() -> None:
    told = emergency.find("my chest hurts")
    asked = emergency.find("what are the causes of chest pain")
    assert emergency.combined(told, 0.5) > 0.5 > emergency.combined(asked, 0.5)


def test_a_conversation_without_a_user_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="no user turn"):
        emergency.verdict((Message("assistant", "hello"),), None, HALF)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("bp 210/125 and headache", "blood pressure"),
        ("blood pressure 78 over 40, dizzy", "low blood pressure"),
        ("spo2 of 83%", "breathing"),
        ("heart rate 178 at rest", "heart rhythm"),
        ("potassium came back 7.0", "laboratory value"),
        ("my inr is 9.5", "laboratory value"),
        ("blood sugar 560", "diabetic"),
        ("glucose 2.4 mmol", "diabetic"),
        ("troponin was elevated", "heart attack"),
        ("he is 6 weeks old, rectal temp 100.9", "sick infant"),
    ],
)
def test_numbers_that_are_an_emergency_by_themselves(text: str, kind: str) -> None:
    assert kind in {value.kind for value in vitals.values(clauses.plain(text)) if value.weight >= 0.7}


@pytest.mark.parametrize(
    "text",
    [
        "bp 138/86",
        "spo2 97%",
        "heart rate 72",
        "potassium 4.4",
        "inr 2.6",
        "blood sugar 142",
        "he is 3 years old with a fever of 38.9",
        "my cholesterol is 210 and ldl 140",
        "I am 83 years old and weigh 190 pounds",
        "I took 2 tylenol",
        "took 20 tablets over the last 10 days as prescribed",
    ],
)
def test_ordinary_numbers_are_none(text: str) -> None:
    assert not [value for value in vitals.values(clauses.plain(text)) if value.weight > 0]


def test_a_cut_finger_is_no_severed_one() -> None:
    assert weight("I cut my finger while chopping carrots, it bled for five minutes") < 0.8


@pytest.mark.parametrize(
    ("text", "fires"),
    [
        ("I have the worst headache of my life", True),
        ("My head hurts, it's the worst pain of my life", True),
        ("I had the worst headache of my life last year. Is migraine hereditary?", False),
    ],
)
def test_the_worst_headache_of_a_life_needs_no_other_sign(text, fires):
    assert emergency.verdict([Message("user", text)], lambda _: 0.1, 0.5).verdict is fires
