"""The option that a model finds most likely: layouts, shuffled options, accuracy with its interval."""

import json

import pytest

from medtune.errors import DataError
from medtune.evaluation import choices
from medtune.evaluation.statistics import Bootstrap
from medtune.evaluation.systems import System
from medtune.recipe_evaluate import ChoiceTest
from medtune.types import Likelihood

ROWS = {
    "medmcqa": {"question": "What prevents scurvy?", "opa": "A", "opb": "B12", "opc": "C", "opd": "D", "cop": 2},
    "medqa": {"question": "Scurvy?", "options": {"A": "iron", "B": "vitamin C"}, "answer_idx": "B"},
    "pubmedqa": {"question": "Does it help?", "context": {"contexts": ["Trial.", "It did."]}, "final_decision": "yes"},
}  # fmt: skip
RIGHT = {"medmcqa": "C", "medqa": "vitamin C", "pubmedqa": "yes"}


@pytest.fixture
def written(tmp_path):
    """Writes rows of a layout to a file and returns the test: written(layout, rows)."""

    def write(layout, rows):
        path = tmp_path / f"{layout}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ChoiceTest(layout=layout, path=str(path))

    return write


@pytest.mark.parametrize("layout", ROWS)
def test_the_right_option_stays_the_right_one(written, layout):
    (choice,) = choices.read(written(layout, [ROWS[layout]]), 0)
    assert choice.options[choice.answer] == RIGHT[layout]
    asked = choice.conversations()
    assert [c.answer for c in asked] == list("ABCD")[: len(asked)]
    assert f"{'ABCD'[choice.answer]}. {RIGHT[layout]}" in asked[0].question
    assert "It did." in asked[0].question or layout != "pubmedqa"


def test_options_are_shuffled_question_by_question_and_alike_in_every_run(written):
    test = written("medmcqa", [{**ROWS["medmcqa"], "question": f"Question {i}?"} for i in range(60)])
    first, again, other = (list(choices.read(test, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert {choice.answer for choice in first} == {0, 1, 2, 3}


def knowing(name, share, fingerprint="f"):
    """A system that finds the right letter most likely in `share` of the questions."""

    def likelihoods(conversations, _batch_size):
        for index, conversation in reversed(list(enumerate(conversations))):
            knows = int(conversation.question.split()[1].rstrip("?")) < share * 60
            line = next(x for x in conversation.question.splitlines() if x.startswith(f"{conversation.answer}. "))
            yield index, Likelihood(1.0 if line.endswith(". C") == knows else 2.0, 1, 1)

    return System(name, fingerprint, lambda *_: iter(()), likelihoods)


def test_accuracy_and_its_difference(written, tmp_path):
    test = written("medmcqa", [{**ROWS["medmcqa"], "question": f"Question {i}?"} for i in range(60)])
    asked = choices.Choices([test], 0, tmp_path / "choices.jsonl")
    for system in (knowing("base", 0.2), knowing("tuned", 0.9), System("nearest", "f", lambda *_: iter(()))):
        asked.ask(system, 4)
    found = asked.summary(Bootstrap(500, 0))["medmcqa"]
    assert (found["questions"], found["chance"]) == (60, 0.25)
    assert {name: value["value"] for name, value in found["systems"].items()} == {"base": 0.2, "tuned": 0.9}
    assert found["systems"]["base"]["low"] < 0.2 < found["systems"]["base"]["high"]
    assert found["paired"]["value"] == pytest.approx(0.7)
    assert found["paired"]["p"] < 0.01
    again = choices.Choices([test], 0, tmp_path / "choices.jsonl")
    again.ask(System("base", "f", lambda *_: iter(()), lambda *_: pytest.fail("asked again")), 4)
    assert again.summary(Bootstrap(500, 0))["medmcqa"] == found
    again.ask(knowing("base", 0.5, "another model"), 4)
    assert again.summary(Bootstrap(500, 0))["medmcqa"]["systems"]["base"]["value"] == 0.5


def test_no_tests_are_no_figures(tmp_path):
    asked = choices.Choices([], 0, tmp_path / "choices.jsonl")
    asked.ask(knowing("base", 1), 4)
    assert asked.summary(Bootstrap(100, 0)) == {}
    assert not asked.path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cop": -1}, "no right answer is given"),
        ({"cop": 7}, "not a medmcqa question"),
        ({"cop": None}, "row 1: not a"),
    ],
)
def test_a_row_that_is_not_right_is_named(written, change, message):
    with pytest.raises(DataError, match=message):
        list(choices.read(written("medmcqa", [{**ROWS["medmcqa"], **change}]), 0))
