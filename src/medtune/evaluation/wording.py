"""How an answer reads, whatever it says: repetition, variety, school grade.

Covered: sums that are resampled exactly. Not covered: comparison with a reference (`overlap`, `facts`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ngrams(text: str, size: int) -> tuple[int, int]:
    """(different, all) runs of `size` words in `text`, whatever their case."""
    words = text.lower().split()
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return len(set(runs)), len(runs)


def grade_level(counts: Array) -> Array:
    """Flesch-Kincaid school grade of summed `readability.reading_counts`, shape [..., 3] to [...]."""
    words, sentences, syllables = counts[..., 0], counts[..., 1], counts[..., 2]
    level: Array = 0.39 * words / sentences + 11.8 * syllables / words - 15.59
    return level
