"""What an answer says and omits, by its words: content-word recall, must-have statements, numbers and negations.

Covered: English, without a model: what can be compared is compared, and the rest is not measured.
Not covered: meaning. "Agrees" here means: no number with the same unit contradicts the reference, and no statement on
the same things has the opposite sign. An answer that says nothing comparable is left out, not rewarded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from bm25s.stopwords import STOPWORDS_EN_PLUS

from medtune.evaluation.overlap import stems

NEGATIONS = frozenset(("no", "not", "never", "none", "nor", "neither", "without", "cannot"))
ALIKE = 0.5  # Jaccard similarity of content words from which two clauses are about the same thing
_NEGATION = re.compile(r"\b(?:no|not(?! only)|never|none|nor|neither|without|cannot)\b|n['’]t\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[.!?;:](?:\s+|$)|\n+|,?\s+(?:but|although|though|however|whereas)\s+", re.IGNORECASE)
_SPELT = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORDS = {word: str(number) for number, word in enumerate(_SPELT, 2)}
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_QUANTITY = re.compile(
    rf"(?<![\w.-])({_NUMBER})(?:\s*(?:-|–|to)\s*({_NUMBER}))?\s*-?\s*(%|[A-Za-zµμ°]+)?", re.IGNORECASE
)
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("kg", "kilogram", "kilograms"), ("mass", 1e6)),
    **dict.fromkeys(("g", "gram", "grams"), ("mass", 1e3)),
    **dict.fromkeys(("mg", "milligram", "milligrams"), ("mass", 1.0)),
    **dict.fromkeys(("mcg", "µg", "μg", "ug", "microgram", "micrograms"), ("mass", 1e-3)),
    **dict.fromkeys(("l", "litre", "litres", "liter", "liters"), ("volume", 1e3)),
    **dict.fromkeys(("ml", "millilitre", "millilitres", "milliliter", "milliliters"), ("volume", 1.0)),
    **dict.fromkeys(("min", "minute", "minutes"), ("time", 1.0)),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), ("time", 60.0)),
    **dict.fromkeys(("day", "days"), ("time", 1440.0)),
    **dict.fromkeys(("week", "weeks"), ("time", 10080.0)),
    **dict.fromkeys(("month", "months"), ("month", 1.0)),
    **dict.fromkeys(("year", "years"), ("month", 12.0)),
    **dict.fromkeys(("%", "percent"), ("share", 1.0)),
}
Quantity = tuple[str, float, float]


def content_words(text: str) -> frozenset[str]:
    """Stems of the words that carry meaning: no function words, no negations."""
    return frozenset(word for word in stems(text) if word not in _stop_stems())


@functools.cache
def _stop_stems() -> frozenset[str]:
    return frozenset(stem for word in (*STOPWORDS_EN_PLUS, *NEGATIONS) for stem in stems(word))


def recall(references: Sequence[str], answer: str) -> float | None:
    """Share of a reference's content words that the answer has; of the best reference. None without content words."""
    found = content_words(answer)
    wanted = [words for reference in references if (words := content_words(reference))]
    return max(len(words & found) / len(words) for words in wanted) if wanted else None


def completeness(statements: Sequence[str], answer: str) -> float | None:
    """How much of the must-have statements the answer has: content-word recall of each, averaged. None without any."""
    parts = [part for statement in statements if (part := recall([statement], answer)) is not None]
    return sum(parts) / len(parts) if parts else None


def quantities(text: str) -> list[Quantity]:
    """(dimension, lowest, highest) of every number with a unit or a thing counted, doses in mg, times in minutes."""
    spelt = re.sub(rf"\b({'|'.join(_WORDS)})\b", lambda match: _WORDS[match[0].lower()], text, flags=re.IGNORECASE)
    found = []
    for low, high, unit in _QUANTITY.findall(spelt):
        dimension, factor = _UNITS.get(unit.lower(), (" ".join(content_words(unit)), 1.0))
        if dimension:
            bounds = sorted(float(number.replace(",", "")) * factor for number in (low, high or low))
            found.append((dimension, bounds[0], bounds[1]))
    return found


def numbers(references: Sequence[str], answer: str) -> float | None:
    """Share of the answer's quantities that agree with the reference's; of the best reference.

    Quantities of one dimension are compared; one that a reference never mentions is not. None where none can be.
    """
    return _best(_numbers(quantities(reference), quantities(answer)) for reference in references)


def _numbers(known: Sequence[Quantity], said: Sequence[Quantity]) -> float | None:
    verdicts = []
    for dimension, low, high in said:
        ranges = [(a, b) for other, a, b in known if other == dimension]
        if ranges:
            verdicts.append(any(a * (1 - 1e-9) <= low and high <= b * (1 + 1e-9) for a, b in ranges))
    return sum(verdicts) / len(verdicts) if verdicts else None


def negations(references: Sequence[str], answer: str) -> float | None:
    """Share of the answer's clauses that deny or affirm as the reference's clause on the same things does.

    None where no clause is about the same things.
    """
    said = _clauses(answer)
    return _best(_negations(_clauses(reference), said) for reference in references)


def _negations(
    known: Sequence[tuple[frozenset[str], bool]], said: Sequence[tuple[frozenset[str], bool]]
) -> float | None:
    verdicts = []
    for words, sign in said:
        alike = [(len(words & other) / len(words | other), sign == other_sign) for other, other_sign in known]
        likeness, agrees = max(alike, default=(0.0, True))
        if likeness >= ALIKE:
            verdicts.append(agrees)
    return sum(verdicts) / len(verdicts) if verdicts else None


def _clauses(text: str) -> list[tuple[frozenset[str], bool]]:
    """Content words of every clause, and whether it denies: an odd number of negations does."""
    clauses = ((content_words(clause), len(_NEGATION.findall(clause)) % 2 == 1) for clause in _CLAUSE.split(text))
    return [(words, denies) for words, denies in clauses if words]


def _best(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
