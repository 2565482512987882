"""Whether a document that was found has to do with the question at all: the search always finds something.

Covered: the share of the question's words, weighted by rarity, in a document's names, questions and texts; with an
encoder, how near the question is to its nearest passage. Not covered: which passage is best (`knowledge.search`),
whether it backs a sentence (`grounding`).

The thresholds let through 90 % of the starter library's own ways of asking, each taken out of its entry first: what
fits worse than that is mostly another topic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtune.assistant.grounding import Rarity
from medtune.assistant.words import content
from medtune.types import Passage

if TYPE_CHECKING:
    from medtune.knowledge.index import Floats, Index

WORDS_WEIGHT = 0.35
FITS_MEANING, FITS_WORDS = 0.55, 0.3
"""Least fit with an encoder (cosine plus weighted words), and by words alone."""


def fits(index: Index, rarity: Rarity, query: str, passage: Passage, vector: Floats | None) -> bool:
    """Whether the document of `passage` can answer `query`, whose unit vector is `vector` (None: words alone)."""
    rows = [index.row_of[p.id] for p in index.related(passage)]
    there = set(content(" ".join(_strings(index, rows))))
    asked = set(content(query))
    total = sum(map(rarity, asked))
    words = sum(rarity(word) for word in asked & there) / total if total else 0.0
    texts = index.fields["texts"]
    if vector is None or texts.vectors is None:
        return words >= FITS_WORDS
    keys = [int(texts.keys[at]) for row in rows for at in range(texts.start[row], texts.start[row + 1])]
    nearest = float((texts.vectors[keys] @ vector).max())
    return nearest + WORDS_WEIGHT * words >= FITS_MEANING


def _strings(index: Index, rows: list[int]) -> list[str]:
    entries = [index.entry(row) for row in rows]
    return [text for e in entries for text in (*e.names, *e.questions, e.passage.section, e.passage.text)]
