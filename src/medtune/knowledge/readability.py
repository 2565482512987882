"""How hard a text is to read: the Flesch-Kincaid grade, that is the years of school in the US that it takes.

Covered: English; 0.39 words per sentence + 11.8 syllables per word - 15.59 (Kincaid et al. 1975), syllables counted by
groups of vowels. Not covered: other languages, and whether a text is understood. The library textstat would count
syllables from a dictionary that it downloads at its first use; nothing here may use the network.
"""

from __future__ import annotations

import re
from typing import Any

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+[\"”')\]]*(?=\s|$)|\n+")
_SILENT_ENDING = re.compile(r"(?:[^laeiouy]es|[^dt]ed|[^aeiouyl]e)$")
_VOWELS = re.compile(r"[aeiouy]+")


def grade(text: str) -> float:
    """The Flesch-Kincaid grade of `text`; 0.0 where it has no words."""
    words, sentences, count = reading_counts(text)
    return float(flesch_kincaid(words, sentences, count)) if words else 0.0


def flesch_kincaid(words: Any, sentences: Any, syllables: Any) -> Any:
    """The school grade from counts, of one text or of many (arrays of one shape)."""
    return 0.39 * words / sentences + 11.8 * syllables / words - 15.59


def reading_counts(text: str) -> tuple[int, int, int]:
    """(words, sentences, syllables) of `text`; a line ends a sentence too, and figures are no words."""
    sentences = [words for part in _SENTENCE_END.split(text) if (words := _WORD.findall(part))]
    words = [word for sentence in sentences for word in sentence]
    return len(words), len(sentences), sum(map(syllables, words))


def syllables(word: str) -> int:
    """Groups of vowels in `word`, the silent endings -e, -es and -ed left out; at least 1."""
    letters = re.sub(r"[^a-z]", "", word.lower())
    if len(letters) > 3:
        letters = _SILENT_ENDING.sub(lambda ending: ending[0][0], letters)
    return max(1, len(_VOWELS.findall(letters)))
