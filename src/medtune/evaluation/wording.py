"""How an answer reads, whatever it says: repetition, variety, school grade.

Covered: sums that are resampled exactly. Not covered: comparison with a reference (`overlap`, `facts`).
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE = re.compile(r"[.!?]+(?=\s|$)|\n+")
_SYLLABLES = re.compile(r"[aeiouyáéíóúäöü]+", re.IGNORECASE)


def ngrams(text: str, size: int) -> tuple[int, int]:
    """(different, all) runs of `size` words in `text`, whatever their case."""
    words = text.lower().split()
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return len(set(runs)), len(runs)


def reading_counts(text: str) -> tuple[int, int, int]:
    """(words, sentences, syllables) of English text; syllables are groups of vowels, a silent final e left out."""
    words = _WORD.findall(text)
    sentences = sum(1 for part in _SENTENCE.split(text) if _WORD.search(part))
    return len(words), sentences, sum(map(_syllables, words))


def _syllables(word: str) -> int:
    groups = len(_SYLLABLES.findall(word))
    silent = word.lower().endswith("e") and not word.lower().endswith(("le", "ee")) and groups > 1
    return max(1, groups - silent)


def grade_level(counts: Array) -> Array:
    """Flesch-Kincaid school grade of summed `reading_counts`, shape [..., 3] to [...]."""
    words, sentences, syllables = counts[..., 0], counts[..., 1], counts[..., 2]
    level: Array = 0.39 * words / sentences + 11.8 * syllables / words - 15.59
    return level
