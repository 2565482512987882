"""Which conversations repeat others. The choice depends on their content alone, never on the order of the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtune.data.features import Features
from medtune.data.near import Ints, WordSets, build, matches
from medtune.recipe import CleanSection

EXACT = "exact duplicate"
NEAR = "same question, near-duplicate answer"
BOILERPLATE = "boilerplate: the answer stands under more than max_repeats questions"
REASONS = (EXACT, NEAR, BOILERPLATE)


def find(features: Features, section: CleanSection) -> NDArray[np.int8]:
    """For each row 0 (kept) or 1 + the index of its reason in `REASONS`."""
    verdict = np.zeros(len(features), dtype=np.int8)
    # Of two rows the one with the longer answer is kept; among equals the smaller key, which no file order can change.
    order = np.lexsort((features.number, features.file, features.key, -features.answer_words))
    first = np.unique(features.key[order], return_index=True)[1]
    verdict[:] = 1
    verdict[order[first]] = 0
    verdict[_near(features, order[verdict[order] == 0], section.near_duplicate)] = 2
    if section.max_repeats is not None:
        verdict[_boilerplate(features, np.flatnonzero(verdict == 0), section.max_repeats)] = 3
    return verdict


def _near(features: Features, rows: Ints, threshold: float) -> Ints:
    """Of `rows`, best first, those whose answer nearly repeats that of a better row under the same prompt."""
    _, inverse, counts = np.unique(features.prompt[rows], return_inverse=True, return_counts=True)
    rows = rows[counts[inverse] > 1]
    if not len(rows):
        return rows
    # Mixing the prompt into every word makes answers to different prompts share nothing: they are never compared.
    salt = (features.prompt[rows] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.uint32)
    sets = features.words.take(rows)
    index = build(WordSets(sets.starts, sets.words ^ np.repeat(salt, sets.sizes)), threshold)
    dropped = np.zeros(len(rows), dtype=bool)
    for position, near in matches(index, np.arange(len(rows))):
        better = near[near < position]
        dropped[position] = bool(
            (~dropped[better] & (features.prompt[rows[better]] == features.prompt[rows[position]])).any()
        )
    return rows[dropped]


def _boilerplate(features: Features, rows: Ints, max_repeats: int) -> Ints:
    """Of `rows`, all but `max_repeats` of each answer: those with the smallest keys stay."""
    order = rows[np.lexsort((features.key[rows], features.answer[rows]))]
    answers = features.answer[order]
    starts = np.flatnonzero(np.concatenate([[True], answers[1:] != answers[:-1]]))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return order[rank >= max_repeats]
