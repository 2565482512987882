"""The near-duplicate search against comparing every pair."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import numpy as np
import pytest

from medtune.data.near import WORD, build, matches, word_sets


def brute_force(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    sets = [set(WORD.findall(text.casefold())) for text in texts]
    return {
        (i, j)
        for i in range(len(sets))
        for j in range(len(sets))
        if i != j and sets[i] and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9
    }


def found(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    index = build(word_sets(texts), threshold)
    return {(query, int(row)) for query, rows in matches(index, np.arange(len(texts))) for row in rows}


def variants(seed: int, count: int) -> list[str]:
    """Texts of 0 to 80 words, many of them copies with a few words changed, so that all similarities occur."""
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(120)]
    texts = [" ".join(draw.choices(words, k=draw.randrange(80))) for _ in range(count // 3)]
    while len(texts) < count:
        tokens = draw.choice(texts).split()
        texts.append(" ".join(draw.choice(words) if draw.random() < 0.12 else token for token in tokens))
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_same_pairs_as_brute_force(threshold: float) -> None:
    texts = variants(int(threshold * 10), 150)
    expected = brute_force(texts, threshold)
    assert len(expected) > 10
    assert found(texts, threshold) == expected


def test_threshold_is_met_exactly_at_the_border() -> None:
    assert found(["a b c d", "a b c d e"], 0.8) == {(0, 1), (1, 0)}
    assert found(["a b c d", "a b c e"], 0.8) == set()


def test_texts_without_words_match_nothing() -> None:
    assert found(["", "?!", "word"], 0.8) == set()


def test_same_pairs_as_brute_force_on_real_answers(shared_data: Path) -> None:
    with gzip.open(shared_data / "medquad.csv.gz", "rt", encoding="utf-8", newline="") as file:
        texts = [row["Answer"] for row in csv.DictReader(file)][5500:5800]
    expected = brute_force(texts, 0.8)
    assert len(expected) > 20
    assert found(texts, 0.8) == expected
