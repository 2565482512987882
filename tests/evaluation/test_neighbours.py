"""Scores apart for questions that training has nearly seen."""

import numpy as np
import pytest

from medtune.evaluation import neighbours
from medtune.evaluation.facts import content_words
from medtune.evaluation.statistics import Bootstrap

WORDS = ["asthma", "treatment", "children", "liver", "fever", "cough", "heart"]


def test_similarity_is_the_jaccard_of_content_words_with_the_nearest(conversation):
    generator = np.random.default_rng(0)
    sides = [
        [conversation(i, " ".join(generator.choice(WORDS, 4)) + " of the") for i in range(size)] for size in (30, 20)
    ]
    found = neighbours.similarity(*sides)
    for value, asked in zip(found, sides[1], strict=True):
        one = content_words(asked.question)
        all_known = [content_words(known.question) for known in sides[0]]
        assert value == pytest.approx(max(len(one & other) / len(one | other) for other in all_known))


def test_nothing_resembles_an_empty_training_split(conversation):
    assert neighbours.similarity([], [conversation(1)]).tolist() == [0]
    assert neighbours.similarity([conversation(1, "of the")], [conversation(2, "is it")]).tolist() == [0]


def test_scores_stand_apart(record):
    base = [record(i, 0.2, f"g{i}") for i in range(20)]
    tuned = [record(i, 0.8 if i < 10 else 0.2, f"g{i}", system="tuned") for i in range(20)]
    likeness = {f"c{i}": 0.9 if i < 10 else 0.1 for i in range(20)}
    found = neighbours.apart(likeness, {"base": base, "tuned": tuned}, Bootstrap(200, 0))
    assert (found["near"]["questions"], found["far"]["questions"]) == (10, 10)
    assert found["near"]["systems"]["tuned"]["value"] == pytest.approx(0.8)
    assert found["near"]["paired"]["direction"] == "helped"
    assert found["far"]["paired"]["value"] == 0
    alone = neighbours.apart({"c1": 0.9}, {"tuned": tuned[1:2]}, Bootstrap(200, 0))
    assert alone["far"] == {"questions": 0, "systems": {"tuned": None}, "paired": None}
