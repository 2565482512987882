"""How an answer reads, whatever it says: repetition, variety, school grade.

Covered: sums that are resampled exactly. Not covered: comparison with a reference (`overlap`, `facts`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medtune.knowledge.readability import flesch_kincaid

Array = NDArray[np.float64]


def ngrams(text: str, size: int) -> tuple[int, int]:
    """(different, all) runs of `size` words in `text`, whatever their case."""
    words = text.lower().split()
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return len(set(runs)), len(runs)


def grade_level(counts: Array) -> Array:
    """Flesch-Kincaid school grade of summed `readability.reading_counts`, shape [..., 3] to [...]."""
    level: Array = flesch_kincaid(counts[..., 0], counts[..., 1], counts[..., 2])
    return level
