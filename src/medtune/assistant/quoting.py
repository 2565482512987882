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
HEADING_WORDS = 4
"""Words of a line without a full stop up to which it is a heading."""
TELLING_WORDS = 3
"""Content words that a sentence must have to stand alone as an answer."""
MARGIN = 0.08
"""How much nearer to the question than the short answer a sentence must be to be added to it."""
NEAR = 0.28
"""Least nearness of a sentence that is quoted in answer to a further question."""
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

    Of a document quoted before, up to two sentences that are near to the question, and when to seek care; nothing where
    none is near.
    """
    sectioned = [p for p in document if p.section in SECTION_OF]
    if not sectioned:
        return _excerpt(grounding, question, document[0])
    found = [Quote(SECTION_OF[p.section], p, text) for p in sectioned for text in split(p.text)]
    short = [quote for quote in found if quote.section == "in_short"]
    if short and all(quote.text in said for quote in short):
        return _more(grounding, question, found)
    near = _nearness(grounding, question, found, titled=True)
    telling = [q for q in sorted(found, key=lambda q: -near[q]) if len(content(q.text)) >= TELLING_WORDS]
    if telling and near[telling[0]] > max((near[q] for q in short), default=0.0) + MARGIN:
        # After what the document says in short, which it may refer to ("it is not caused by sugar").
        found.remove(telling[0])
        found.insert(len(short), replace(telling[0], section="in_short"))
    return found


def _more(grounding: Grounding, question: str, found: list[Quote]) -> list[Quote]:
    """What a document that was quoted before says about a further question."""
    rest = [quote for quote in found if quote.section not in ("in_short", "seek_care")]
    near = _nearness(grounding, question, rest, titled=False)
    first = [quote for quote in sorted(rest, key=lambda q: -near[q])[:2] if near[quote] >= NEAR]
    care = [quote for quote in found if quote.section == "seek_care"]
    return [replace(quote, section="in_short") for quote in first] + (care if first else [])


def _nearness(grounding: Grounding, question: str, found: Sequence[Quote], *, titled: bool) -> dict[Quote, float]:
    """How near each sentence, read under its title or alone, is to the question: cosine, or the share of its words."""
    if grounding.encoder is None:
        asked = content(question)
        titles = (frozenset(content(quote.passage.title)) if titled else frozenset[str]() for quote in found)
        return {q: grounding.recall(asked, q.text, title) for q, title in zip(found, titles, strict=True)}
    texts = [f"{quote.passage.title}: {quote.text}" if titled else quote.text for quote in found]
    vectors = grounding.encoder.encode([question, *texts])
    return dict(zip(found, (vectors[1:] @ vectors[0]).astype(float).tolist(), strict=True))


def _excerpt(grounding: Grounding, question: str, passage: Passage) -> list[Quote]:
    """A few sentences from where the passage comes nearest to the question; the first of them is the short answer."""
    sentences = [text for text in split(passage.text) if not _is_heading(text)] or split(passage.text)
    asked = content(question)
    near = [grounding.recall(asked, " ".join(sentences[at : at + 2])) for at in range(len(sentences))]
    best = int(np.argmax(near)) if near else 0
    first = 0 if best < SENTENCES else best
    chosen = sentences[first : first + SENTENCES]
    return [Quote("details" if at else "in_short", passage, text) for at, text in enumerate(chosen)]


def _is_heading(text: str) -> bool:
    """Whether a line of a longer text is its heading, not a statement: a question, or a few words without a stop."""
    return text.endswith("?") or (text[-1].isalnum() and len(text.split()) <= HEADING_WORDS)
