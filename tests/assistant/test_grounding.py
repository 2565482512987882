from __future__ import annotations

import pytest

from medtune.assistant.grounding import Grounding
from medtune.types import Passage

PASSAGE = Passage(
    "gout",
    "Gout is caused by too much uric acid in the blood. Attacks often start at night in the big toe. "
    "Gout is not contagious. Drinking 2 liters of water a day lowers the risk of attacks. "
    "Do not take aspirin during an attack. A flare usually passes within 7 to 10 days. "
    "The usual tablet is 0.5 mg twice daily for at most 3 days.",
    "Gout",
)
OTHER = Passage("flu", "Flu spreads through the air when people cough. A vaccine once a year protects well.", "Flu")

BACKED = [
    "Too much uric acid in the blood causes gout.",
    "Gout attacks often begin at night, in the big toe.",
    "Gout is not contagious.",
    "Drinking two liters of water a day lowers the risk of gout attacks.",
    "You should not take aspirin during an attack of gout.",
    "A gout flare passes within 7 to 10 days.",
]
TURNED = [
    ("Gout is contagious.", "opposite"),
    ("Gout is not caused by too much uric acid in the blood.", "opposite"),
    ("Take aspirin during an attack of gout.", "opposite"),
    ("Drinking 2 liters of water a day raises the risk of attacks.", "says"),
    ("Drinking 3 liters of water a day lowers the risk of attacks.", "3"),
    ("A flare usually passes within 7 to 14 days.", "14"),
    ("The usual tablet is 5 mg twice daily.", "5"),
    ("The usual tablet is 0.5 g twice daily.", "0.5 g"),
    ("A flare usually passes within ten weeks.", "10 week"),
]
FOREIGN = [
    "Insulin lowers the sugar in your blood.",
    "Flu spreads through the air.",
    "Gout is cured by surgery on the liver.",
    "I hope this helps!",
]


@pytest.mark.parametrize("text", BACKED)
def test_what_a_passage_says_is_supported(text: str) -> None:
    sentence, why = Grounding().check(text, [OTHER, PASSAGE], 0.6)
    assert (sentence.support, sentence.passages, why) == ("supported", ("gout",), "")
    assert sentence.score >= 0.6


@pytest.mark.parametrize(("text", "because"), TURNED)
def test_altered_numbers_units_and_negations_are_not(text: str, because: str) -> None:
    sentence, why = Grounding().check(text, [PASSAGE], 0.6)
    assert sentence.support == "unsupported"
    assert sentence.passages == ()
    assert because in why


@pytest.mark.parametrize("text", FOREIGN)
def test_what_no_passage_says_is_not(text: str) -> None:
    sentence, why = Grounding().check(text, [PASSAGE], 0.6)
    assert sentence.support == "unsupported"
    assert why


def test_rare_words_weigh_more() -> None:
    common = {"caus": 0.1, "blood": 0.1}
    grounding = Grounding(lambda word: common.get(word, 1.0))
    plain, _ = Grounding().check("Gout is caused by lead in the blood.", [PASSAGE], 0.6)
    weighed, _ = grounding.check("Gout is caused by lead in the blood.", [PASSAGE], 0.6)
    assert weighed.score < plain.score
    assert weighed.support == "unsupported"


def test_every_passage_that_backs_a_sentence_is_named() -> None:
    copy = Passage("gout-2", PASSAGE.text, "Gout")
    sentence, _ = Grounding().check("Gout is not contagious.", [PASSAGE, OTHER, copy], 0.6)
    assert sentence.passages == ("gout", "gout-2")


def test_a_number_must_stand_in_the_passage_that_is_cited() -> None:
    with_number = Passage("x", "Insulin is kept at 5 degrees.", "Insulin")
    sentence, _ = Grounding().check(
        "Drinking 5 liters of water a day lowers the risk of attacks.", [PASSAGE, with_number], 0.6
    )
    assert sentence.support == "unsupported"


def test_without_passages_nothing_is_supported() -> None:
    assert Grounding().check("Gout hurts.", [], 0.0)[0].support == "unsupported"


def says(passage: str, text: str) -> bool:
    return Grounding().check(text, [Passage("p", passage, "")], 0.6)[0].support == "supported"


def test_a_dose_by_weight_is_not_a_dose() -> None:
    assert not says("Give 10 mg/kg of the medicine.", "Give 10 mg of the medicine.")
    assert not says("Give 10 mg per kg of the medicine.", "Give 10 mg of the medicine.")
    assert not says("Give 10 mg of the medicine.", "Give 10 mg/kg of the medicine.")
    assert not says("Give 10 mg/kg/day of the medicine.", "Give 10 mg/day of the medicine.")
    assert says("Give 10 mg/kg of the medicine.", "Give 10 mg per kilogram of the medicine.")
    assert says("Give 10 mg of the medicine daily.", "Give 10 mg/day of the medicine.")


def test_a_decimal_point_does_not_part_thousands() -> None:
    assert not says("The tablet holds 1.250 mg of salt.", "The tablet holds 1250 mg of salt.")
    assert says("The tablet holds 1,250 mg of salt.", "The tablet holds 1250 mg of salt.")
    assert says("The tablet holds 1\u2009250 mg of salt.", "The tablet holds 1250 mg of salt.")


@pytest.mark.parametrize("celsius", ["38 C", "38 °C", "38 degrees C", "38 degrees Celsius"])
def test_fahrenheit_is_not_celsius(celsius: str) -> None:
    passage = f"A temperature above {celsius} is a fever."
    assert not says(passage, "A temperature above 38 F is a fever.")
    assert not says(passage, "A temperature above 38 degrees F is a fever.")
    assert says(passage, "A temperature above 38°C is a fever.")
    assert says(passage, "A temperature above 38 degrees is a fever.")
