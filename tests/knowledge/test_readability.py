from __future__ import annotations

import pytest

from medtune.knowledge.readability import grade, reading_counts, syllables


@pytest.mark.parametrize(
    ("word", "count"),
    [("cat", 1), ("water", 2), ("baked", 1), ("wanted", 2), ("medicine", 3), ("table", 2), ("emergency", 4)],
)
def test_syllables(word: str, count: int) -> None:
    assert syllables(word) == count


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("The cat sat on the mat.", (6, 1, 6)),
        ("Asthma narrows the airways. It is treated.\nSee a doctor", (10, 3, 15)),
        ('He said "stop!" Then he went.', (6, 2, 6)),
        ("", (0, 0, 0)),
        ("12 34 !", (0, 0, 0)),
    ],
)
def test_words_sentences_and_syllables(text: str, counts: tuple[int, int, int]) -> None:
    assert reading_counts(text) == counts


def test_the_grade_is_the_published_formula() -> None:
    text = "The cat sat on the mat. It was warm."  # 9 words, 2 sentences, 9 syllables
    assert grade(text) == pytest.approx(0.39 * 9 / 2 + 11.8 * 1 - 15.59)
    assert grade("") == 0.0


def test_a_decimal_point_ends_no_sentence_and_a_new_line_does() -> None:
    assert grade("It rose by 3.5 points") == pytest.approx(grade("It rose by 35 points"))
    assert grade("It rose\nand then it fell") < grade("It rose and then it fell")


def test_hard_prose_is_harder_than_plain_prose() -> None:
    hard = "Immunological hypersensitivity characteristically precipitates inflammatory manifestations."
    assert grade("Pollen makes the nose run.") < 3 < 12 < grade(hard)
