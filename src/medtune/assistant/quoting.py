"""Which sentences of the passages are quoted, and under which heading.

Covered: documents with the library's sections, and passages without any; the sentence that answers a question better
than the short answer does; follow-ups on a document that was quoted before. Not covered: which passages (`knowledge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medtune.assistant.grounding import Grounding
from medtune.assistant.sentences import split
from medtune.assistant.words import content
from medtune.knowledge.passages import LIBRARY_SECTIONS
from medtune.types import Passage

SENTENCES = 6
"""Quoted of passages without sections."""
TELLING_WORDS = 3
"""Content words that a sentence must have to stand alone as an answer."""
MARGIN = 0.08
"""How much nearer to the question than the short answer a sentence must be to be added to it."""
_SECTIONS = dict(zip(LIBRARY_SECTIONS, ("in_short", "details", "what_to_do", "seek_care", "seek_care"), strict=True))
SECTION_OF = {heading: _SECTIONS[name] for name, (heading, _) in LIBRARY_SECTIONS.items()}
"""The section of a reply that each section of the library belongs to."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a passage, and the section of the reply that it goes into."""

    section: str
    passage: Passage
    text: str


def quotes(grounding: Grounding, question: str, document: Sequence[Passage], said: str) -> list[Quote]:
    """What to quote of a document; `said` is what earlier replies of the conversation hold.

    Of a document quoted before, the two sentences nearest to the question and when to seek care.
    """
    sectioned = [p for p in document if p.section in SECTION_OF]
    if not sectioned:
        return _excerpt(grounding, question, document[0])
    found = [Quote(SECTION_OF[p.section], p, text) for p in sectioned for text in split(p.text)]
    short = [quote for quote in found if quote.section == "in_short"]
    near = dict(zip(found, nearness(grounding, question, found), strict=True))
    nearest = sorted(found, key=lambda quote: -near[quote])
    if short and all(quote.text in said for quote in short):
        first = [quote for quote in nearest if quote.section not in ("in_short", "seek_care")][:2]
        return [*(replace(q, section="in_short") for q in first), *(q for q in found if q.section == "seek_care")]
    telling = [quote for quote in nearest if len(content(quote.text)) >= TELLING_WORDS]
    if telling and near[telling[0]] > max((near[q] for q in short), default=0.0) + MARGIN:
        # After what the document says in short, which it may refer to ("it is not caused by sugar").
        found.remove(telling[0])
        found.insert(len(short), replace(telling[0], section="in_short"))
    return found


def nearness(grounding: Grounding, question: str, found: Sequence[Quote]) -> list[float]:
    """How near each sentence, read under its title, is to the question: cosine, or the share of its words."""
    if grounding.encoder is None:
        asked = content(question)
        return [grounding.recall(asked, quote.text, frozenset(content(quote.passage.title))) for quote in found]
    vectors = grounding.encoder.encode([question, *(f"{quote.passage.title}: {quote.text}" for quote in found)])
    scores: list[float] = (vectors[1:] @ vectors[0]).astype(float).tolist()
    return scores


def _excerpt(grounding: Grounding, question: str, passage: Passage) -> list[Quote]:
    """A few sentences from where the passage comes nearest to the question; the first of them is the short answer."""
    sentences = split(passage.text)
    asked = content(question)
    near = [grounding.recall(asked, " ".join(sentences[at : at + 2])) for at in range(len(sentences))]
    best = int(np.argmax(near)) if near else 0
    first = 0 if best < SENTENCES else best
    chosen = sentences[first : first + SENTENCES]
    return [Quote("details" if at else "in_short", passage, text) for at, text in enumerate(chosen)]
