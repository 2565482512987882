"""Numbers, negations and content words: what can be compared counts, and the rest is not measured."""

import pytest

from medtune.evaluation import facts

REFERENCE = "Take 500 mg twice a day for two weeks. It is not safe in pregnancy."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("500 mg", [("mass", 500, 500)]),
        ("0.5 g or 200 mcg", [("mass", 500, 500), ("mass", pytest.approx(0.2), pytest.approx(0.2))]),
        ("5-10 ml", [("volume", 5, 10)]),
        ("1,500 to 2,000 mg", [("mass", 1500, 2000)]),
        ("two weeks", [("time", 20160, 20160)]),
        ("a 10-day course", [("time", 14400, 14400)]),
        ("three types, 25% of them", [("type", 3, 3), ("share", 25, 25)]),
        ("in 2005 the", []),
        ("COVID-19 is", []),
        ("no numbers", []),
    ],
)
def test_quantities_have_a_dimension(text, found):
    assert facts.quantities(text) == found


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        (REFERENCE, 1),
        ("Take 0.5 g for 14 days.", 1),
        ("Take 50 mg for two weeks.", 0.5),
        ("Take 5 g.", 0),
        ("Take 20 ml.", None),
        ("", None),
    ],
)
def test_numbers_are_compared_within_their_dimension(answer, share):
    assert facts.numbers([REFERENCE], answer) == share


def test_a_number_within_the_reference_range_agrees():
    assert facts.numbers(["Give 5-10 mg."], "Give 7 mg.") == 1
    assert facts.numbers(["Give 5-10 mg."], "Give 11 mg.") == 0


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("It is not safe in pregnancy.", 1),
        ("It is safe in pregnancy.", 0),
        ("It isn't safe in pregnancy", 1),
        ("It is never safe in pregnancy, but take 500 mg twice a day for two weeks.", 1),
        ("The liver makes bile.", None),
        ("", None),
    ],
)
def test_clauses_on_the_same_things_must_have_the_same_sign(answer, share):
    assert facts.negations([REFERENCE], answer) == share


def test_not_only_denies_nothing():
    assert facts.negations(["Smoking harms the lungs."], "Smoking harms not only the lungs.") == 1


def test_recall_is_of_content_words_and_of_the_best_reference():
    assert facts.recall(["The treating of asthma"], "asthma is treated") == 1
    assert facts.recall(["The treatment of asthma"], "the of") == 0
    assert facts.recall(["The treatment of asthma", "gout"], "gout") == 1
    assert facts.recall(["the of"], "asthma") is None
