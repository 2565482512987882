"""Finding the passages that answer a message: by its words and by its meaning, in names, questions and texts.

Not covered: the gist of a long message (`gist`), the index itself (`index`).
"""

from __future__ import annotations

import numpy as np

from medtune.knowledge.index import Floats, Index
from medtune.knowledge.words import words
from medtune.types import Hit


def search(index: Index, text: str, k: int = 10) -> list[Hit]:
    """The `k` passages that answer `text` best, best first; scores compare within one search only.

    An empty text, or one that shares nothing with the index, finds nothing.
    """
    tokens = words(text)
    vectors = index.encoder.encode([text]) if index.encoder and text.strip() else np.zeros((0, 1), np.float32)
    lists = []
    for field in index.fields.values():
        lists.append(field.spread(field.by_words(tokens)))
        if len(vectors):
            lists.append(field.spread(field.by_meaning(vectors)))
    fused = sum((_reciprocal(scores) for scores in lists), np.zeros(len(index), np.float32))
    best = [int(row) for row in np.argsort(-fused, kind="stable")[:k] if fused[row] > 0]
    return [Hit(index.passage(row), float(fused[row])) for row in best]


def _reciprocal(scores: Floats, constant: int = 60) -> Floats:
    ranks = np.empty(len(scores), np.float32)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1, dtype=np.float32)
    result: Floats = np.where(scores > 0, 1 / (constant + ranks), 0).astype(np.float32)
    return result
