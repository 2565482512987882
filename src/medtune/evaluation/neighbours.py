"""Scores apart: test questions that resemble a training question, and those that do not.

Covered: the resemblance of questions by their content words; primary scores of both halves. A model that answers only
what it has nearly seen shows here. Not covered: answers that leak (the split sees to those, `data.split`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medtune.evaluation import summary
from medtune.evaluation.facts import content_words
from medtune.evaluation.metrics import PRIMARY
from medtune.evaluation.statistics import Bootstrap
from medtune.types import Conversation, Record

NEAR = 0.5  # Jaccard similarity of content words from which a training question counts as a near neighbour


def similarity(train: Sequence[Conversation], test: Sequence[Conversation]) -> NDArray[np.float64]:
    """For each test question the Jaccard similarity of its content words with the most similar training question's."""
    sides = [[content_words(c.question) for c in side] for side in (train, test)]
    codes = {
        word: code for code, word in enumerate(sorted({word for side in sides for words in side for word in words}))
    }
    known, asked = (_incidence(side, codes) for side in sides)
    if not len(train) or not codes:
        return np.zeros(len(test))
    shared = (asked @ known.T).tocoo()
    sizes = [np.array([len(words) for words in side], dtype=float) for side in sides]
    jaccard = shared.data / (sizes[1][shared.coords[0]] + sizes[0][shared.coords[1]] - shared.data)
    best = np.zeros(len(test))
    np.maximum.at(best, shared.coords[0], jaccard)
    return best


def _incidence(side: Sequence[Iterable[str]], codes: Mapping[str, int]) -> csr_array:
    rows = [(row, codes[word]) for row, words in enumerate(side) for word in words]
    places = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    return csr_array((np.ones(len(rows)), (places[0], places[1])), shape=(len(side), len(codes)))


def apart(
    likeness: Mapping[str, float], answered: Mapping[str, Sequence[Record]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Primary scores of the questions with and without a near neighbour; `likeness` is by conversation id."""
    halves: dict[str, Any] = {"similarity": NEAR}
    for name, is_near in (("near", True), ("far", False)):
        kept = {
            system: [record for record in records if (likeness[record.id] >= NEAR) == is_near]
            for system, records in answered.items()
        }
        scores = {s: summary.system_metrics(s, records, bootstrap, (PRIMARY,))[PRIMARY] for s, records in kept.items()}
        difference = None
        if {"base", "tuned"} <= set(kept):
            difference = summary.paired(kept["base"], kept["tuned"], bootstrap, (PRIMARY,))[PRIMARY]
        questions = sum((value >= NEAR) == is_near for value in likeness.values())
        halves[name] = {"questions": questions, "systems": scores, "paired": difference}
    return halves
