"""Individual advice is recognised, and what is missing is named."""

import pytest

from medtune.assistant import advice
from medtune.types import Message


def verdict(*turns):
    return advice.verdict([Message("user", turn) for turn in turns])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("How much tylenol can I give my 2 year old?", "child"),
        ("can my 2 year old have ibuprofen and how much", "child"),
        ("how much paracetamol for a 9 kg baby", "child"),
        ("¿Cuánto paracetamol le doy a mi hijo de 3 años?", "child"),
        ("is it ok to use benadryl drops for our baby", "child"),
        ("Is it safe to take ibuprofen while pregnant?", "pregnancy"),
        ("breastfeeding and claritin", "pregnancy"),
        ("I'm 20 weeks pregnant, can I keep taking sertraline", "pregnancy"),
        ("¿Puedo tomar ibuprofeno embarazada?", "pregnancy"),
        ("can i mix xanax with alcohol", "interaction"),
        ("can I take ibuprofen with lisinopril", "interaction"),
        ("does grapefruit interact with statins", "interaction"),
        ("how many mg of melatonin should i take", "dose"),
        ("I took 2 tylenol this morning, can I take another dose now?", "dose"),
        ("should i stop prozac cold turkey", "dose"),
    ],
)
def test_individual_advice_fires(text, kind):
    assert verdict(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "What are the side effects of metformin?",
        "How do I get pregnant?",
        "my period is late, am i pregnant?",
        "when I was pregnant I took folic acid, now my head hurts",
        "Is strep contagious in kids?",
        "How long does the flu last?",
        "How much sleep does a toddler need?",
        "how much water for a 5 year old",
        "my 4 year old grandson takes piano lessons",
    ],
)
def test_general_questions_do_not(text):
    found = verdict(text)
    assert not found.verdict
    assert found.kind == ""


def test_a_terse_follow_up_is_read_with_what_was_said_before():
    assert verdict("My daughter is 3 and has a fever.", "and how much ibuprofen?").kind == "child"


def test_what_was_not_said_is_named():
    assert advice.missing("How much paracetamol can I take?", "dose") == (
        "age",
        "weight",
        "strength",
        "other medicines",
    )
    assert advice.missing("I'm 34 and weigh 80 kg, the pills have 500 mg, no other meds", "dose") == ()
    assert "weight" in verdict("How much tylenol can I give my 2 year old?").reason
