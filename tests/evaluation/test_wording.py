"""How answers read: counts by hand."""

import numpy as np
import pytest

from medtune.evaluation import wording
from medtune.knowledge.readability import reading_counts


def test_the_school_grade_is_flesch_and_kincaids():
    assert float(wording.grade_level(np.array([6.0, 1.0, 6.0]))) == pytest.approx(0.39 * 6 + 11.8 - 15.59)
    easy, hard = (
        "The cat sat on the mat. It was wet.",
        "Corticosteroids ameliorate respiratory inflammation chronically.",
    )
    levels = [float(wording.grade_level(np.array(reading_counts(text), dtype=float))) for text in (easy, hard)]
    assert levels[0] < 3 < 12 < levels[1]


@pytest.mark.parametrize(
    ("text", "size", "counts"),
    [("a b a b a b", 2, (2, 5)), ("A b a B", 2, (2, 3)), ("a b c d", 4, (1, 1)), ("a b", 4, (0, 0))],
)
def test_runs_of_words(text, size, counts):
    assert wording.ngrams(text, size) == counts
