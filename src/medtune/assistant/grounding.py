"""Whether the passages say what a generated sentence says.

Covered: a support score in 0..1, the passages that support, numbers and units that no passage has, negations and
opposites that turn a passage's statement round. Not covered: inference over several sentences; there is no model of
entailment here, so a sentence whose words all stand in a passage but whose relation is another can pass.

The score: of the sentence's content words, weighted by how rare each is, the share that stands in the best two
neighbouring sentences of one passage (words of its title count as said, and weigh little); with an encoder, the mean of
that and of the similarity to those sentences, which may lift it by a tenth at most.
A passage that lacks a number of the sentence, or whose nearest sentence says the opposite, does not support it at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from medtune.assistant.sentences import split
from medtune.assistant.words import content, plain, stem
from medtune.types import Passage, Sentence

if TYPE_CHECKING:
    from medtune.models.encoder import Encoder

ABOUT_WEIGHT = 0.25
"""Weight of a word of the passage's title: it says what a sentence is about, not what the sentence says of it."""
MEANING_ADDS = 0.1
"""How far an encoder may lift a score above what the words alone give."""
LISTED = 4
"""Words of a part of a sentence up to which a negation before its comma still holds."""
OVERLAP = 0.5
"""Share of a sentence's words that a passage's sentence must have before their negations are compared."""
NEGATIONS = frozenset(
    """no not never none nothing nobody neither nor without cannot cant dont doesnt didnt isnt arent wasnt wont shouldnt
    wouldnt couldnt hardly rarely nunca jamas sin ningun ninguna tampoco""".split()  # noqa: SIM905
)
OPPOSITES = {
    "safe": "unsafe dangerous harmful",
    "increase raise rise higher high more grow": "decrease lower low less reduce fall shrink",
    "always": "never rarely seldom",
    "common": "rare uncommon",
    "start begin keep continue": "stop avoid quit",
    "hot warm": "cold cool",
    "harmless benign": "malignant",
    "curable": "incurable",
    "left": "right",
    "before": "after",
    "likely": "unlikely",
    "possible": "impossible",
    "necessary": "unnecessary",
    "upper": "lower",
    "gain": "loss lose",
    "men male": "women female",
    "best good": "worst bad",
}
_OPPOSITE: dict[str, set[str]] = {}
for _left, _right in [*OPPOSITES.items(), *((right, left) for left, right in OPPOSITES.items())]:
    for _word in _left.split():
        _OPPOSITE.setdefault(stem(_word), set()).update(map(stem, _right.split()))
_TIMES = {stem(word) for word in ("second", "minute", "hour", "day", "week", "month", "year")}
for _word in _TIMES:
    _OPPOSITE.setdefault(_word, set()).update(_TIMES - {_word})
NUMBER_WORDS = dict(
    pair.split(":")
    for pair in """two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10 eleven:11 twelve:12 fifteen:15
    twenty:20 thirty:30 forty:40 fifty:50 hundred:100 half:0.5""".split()  # noqa: SIM905
)
UNITS = {
    form: forms.split()[0]
    for forms in (
        "% percent", "mg milligram milligrams", "mcg microgram micrograms ug", "g gram grams", "kg kilo kilos kilogram",
        "ml milliliter milliliters millilitre millilitres cc", "l liter liters litre litres", "iu units unit",
        "second seconds sec", "minute minutes min mins", "hour hours hr hrs h", "day days", "week weeks wk wks",
        "month months", "year years yr yrs", "time times", "tablet tablets pill pills", "drop drops", "mmhg", "mmol",
        "degree degrees", "c celsius centigrade", "f fahrenheit", "dl deciliter deciliters decilitre decilitres",
        "inch inches", "cm centimeter centimeters centimetre", "mm", "calorie calories kcal",
    )
    for form in forms.split()
}  # fmt: skip
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<value>\d+(?:[.,]\d+)*|{'|'.join(NUMBER_WORDS)})(?![\d])[\s-]?°?\s?"
    r"(?:degrees?\s(?=(?:[cf]|celsius|centigrade|fahrenheit)\b))?(?P<unit>%|[a-z]+\b)?"
    rf"(?P<per>(?:\s?/\s?[a-z]\w*|\sper\s(?:{'|'.join(UNITS)})\b)*)"
)
_PER = re.compile(r"/\s?(\w+)|\bper\s(\w+)")
_THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f](?=\d{3}(?!\d))")  # a comma or a thin space, never a point
_CLAUSE = re.compile(r"[,;:.!?()]|\b(?:but|although|though|while|unless|except|pero|aunque|sino)\b")
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")

Rarity = Callable[[str], float]
"""The weight of a stemmed word: near 0 for what stands everywhere, 1 for what is rare."""


def alike(word: str) -> float:
    """Every content word weighs the same: what is taken where nothing is known about a library."""
    del word
    return 1.0


@dataclass(frozen=True)
class Grounding:
    """How sentences are compared with passages: the weight of words, and an encoder where there is one."""

    rarity: Rarity = alike
    encoder: Encoder | None = None

    def check(self, text: str, passages: Sequence[Passage], threshold: float) -> tuple[Sentence, str]:
        """`text` as a sentence with its support, and why it is unsupported ("" where it is supported)."""
        found = [(*self._support(text, passage), passage) for passage in passages]
        best = max((score for score, fault, _ in found if not fault), default=0.0)
        backing = [p for score, fault, p in found if not fault and score >= max(threshold, 0.9 * best)]
        if backing and best > 0:
            return Sentence(text, "supported", tuple(p.id for p in backing), round(best, 3)), ""
        nearest = max(found, key=lambda one: one[0], default=(0.0, "", None))
        return Sentence(text, "unsupported", (), round(best, 3)), nearest[1] or "no passage says this"

    def recall(self, words: Sequence[str], text: str, about: frozenset[str] = frozenset()) -> float:
        """Share of `words`, weighted by rarity, that stand in `text` or in `about`, whose words weigh less."""
        there = _stems(text)
        weights = {word: self.rarity(word) * (ABOUT_WEIGHT if word in about else 1.0) for word in words}
        total = sum(weights.values())
        return sum(w for word, w in weights.items() if word in there or word in about) / total if total else 0.0

    def _support(self, text: str, passage: Passage) -> tuple[float, str]:
        """How far one passage says `text`, and in what it contradicts it ("" where it does not)."""
        words, spans, about = content(text), _spans(passage), _stems(passage.title)
        if not words or not spans:
            return 0.0, ""
        scores = [self.recall(words, span, about) for span in spans]
        at = int(np.argmax(scores))
        score = scores[at]
        if self.encoder is not None:
            one, other = self.encoder.encode([text, spans[at]])
            score = min((score + max(0.0, float(one @ other))) / 2, score + MEANING_ADDS)
        return score, _missing_number(text, passage) or self._contradiction(text, passage, about)

    def _contradiction(self, text: str, passage: Passage, about: frozenset[str]) -> str:
        """Where `text` denies what the nearest sentence of the passage says, or says the opposite word."""
        words = [word for word in content(text) if word not in about] or content(text)
        near = max(split(passage.text), key=lambda sentence: self.recall(words, sentence))
        if self.recall(words, near) < OVERLAP:
            return ""
        return _turned(text, near) or _opposed(text, near)


def _turned(text: str, near: str) -> str:
    """Where one of two sentences denies what the other affirms. What both deny decides, whatever else they hold."""
    mine, theirs = _polarities(text), _polarities(near)
    shared = mine.keys() & theirs.keys()
    if any(mine[word] and theirs[word] for word in shared):
        return ""
    turned = [word for word in mine if word in shared and mine[word] != theirs[word]]
    return f"a passage says the opposite about {turned[0]}" if turned else ""


def _opposed(text: str, near: str) -> str:
    """Where two sentences differ in a word and its opposite (more, less), or in a unit of time (days, weeks)."""
    mine, theirs = ({stem(word) for word in _TOKEN.findall(plain(sentence))} for sentence in (text, near))
    for word in sorted(mine - theirs):
        if other := _OPPOSITE.get(word, set()) & theirs - mine:
            return f"a passage says {min(other)} where this says {word}"
    return ""


def _missing_number(text: str, passage: Passage) -> str:
    """Which number of `text`, with its unit, does not stand in the passage."""
    there = _numbers(f"{passage.title}. {passage.text}")
    missing = sorted(_numbers(text) - there)
    return f"the number {missing[0].strip()} does not stand in the passage" if missing else ""


@lru_cache(maxsize=4096)
def _numbers(text: str) -> frozenset[str]:
    """Every number of `text` as "12", and once more as "12 mg" or "12 mg/kg" where a unit follows it.

    "Per day" and the like are left out of a unit: "daily" says it too, and `_opposed` compares the times.
    """
    found = set()
    for hit in _NUMBER.finditer(plain(_THOUSANDS.sub("", text))):
        value = NUMBER_WORDS.get(hit["value"], hit["value"]).replace(",", ".")
        unit = UNITS.get(hit["unit"] or "", "")
        per = [UNITS.get(name, name) for name in map("".join, _PER.findall(hit["per"]))]
        whole = "/".join([unit, *(part for part in per if stem(part) not in _TIMES)])
        found |= {value, f"{value} {whole}"} if unit else {value}
        found |= {f"{value} degree"} if unit in ("c", "f") else set()
    return frozenset(found)


@lru_cache(maxsize=4096)
def _polarities(text: str) -> dict[str, bool]:
    """Content words, and whether each stands behind a negation in its own part of the sentence."""
    found: dict[str, bool] = {}
    is_negated = False
    for clause in _CLAUSE.split(plain(text)):
        tokens = _TOKEN.findall(clause.replace("not only", ""))
        is_negated = is_negated and len(tokens) <= LISTED  # "no food, drink or aspirin"
        for token in tokens:
            is_negated = is_negated or token.replace("'", "") in NEGATIONS
            for word in content(token):
                found[word] = is_negated
    return found


@lru_cache(maxsize=4096)
def _stems(text: str) -> frozenset[str]:
    return frozenset(content(text))


@lru_cache(maxsize=1024)
def _spans(passage: Passage) -> tuple[str, ...]:
    """Two neighbouring sentences at a time: what a lead draws together often stands in two."""
    sentences = split(passage.text)
    return tuple(f"{a} {b}" for a, b in pairwise(sentences)) or tuple(sentences)
