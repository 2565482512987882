"""Numbers that are an emergency by themselves: vital signs, laboratory values, ages, amounts swallowed.

Covered: what lay people copy from a meter, a watch or a report, in US and metric units; limits with their source.
Not covered: trends, values of children by age (apart from fever in young infants), units other than those below.

Limits: early-warning score NEWS2 (Royal College of Physicians 2017, its three-point bands) for oxygen, pulse, breathing
and pressure; American Heart Association 2017 for hypertensive crisis; American Diabetes Association Standards of Care
for glucose; American Academy of Pediatrics 2021 for fever under three months; critical values of hospital laboratories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_N = r"(\d{1,3}(?:[.,]\d{1,2})?)(?!\d|[.,]\d)"
_GAP = r"(?:[^.!?\n\d]|\.(?=\d)){0,28}?"  # words between a name and its value
_MONTHS = {"day": 1 / 30, "week": 7 / 30, "month": 1.0, "year": 12.0, "hour": 0.0}
_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "a dozen": 12, "two dozen": 24, "a hundred": 100, "ninety": 90, "seventy": 70, "eighty": 80,
}  # fmt: skip
_COUNT = rf"(\d{{1,4}}|{'|'.join(_NUMBERS)})"

_OXYGEN = re.compile(
    rf"\b(?:spo2|sp02|o2|sats?|sat(?:uration|ing)?|oxygen|pulse ?ox\w*|oximeter)\b{_GAP}{_N} ?(?:%|percent)?"
)
_PRESSURE = re.compile(r"\b(\d{2,3}) ?(?:/|over|by|-)\s?(\d{2,3})\b(?! ?(?:/|-)\d)")
_PRESSURE_NAMED = re.compile(r"\b(?:bp|b\.p|blood pressure|pressure|cuff|systolic)\b")
_SYSTOLIC = re.compile(
    r"\b(?:systolic|top number|bp|blood pressure)\b(?:[^.!?\n\d]){0,20}(\d{2,3})\b(?! ?(?:/|over|\d))"
)
_PULSE = re.compile(
    rf"\b(?:pulse|heart ?rate|heart ?beat\w*|hr|bpm|heart (?:is |has been |was )?(?:going|racing|beating"
    rf"|at))\b(?!\s*ox){_GAP}(\d{{2,3}})\b(?! ?(?:/|over|%|mg|years?|percent))"
    r"|\b(\d{2,3}) ?(?:bpm|beats)"
)
_BREATHS = re.compile(
    rf"\b(?:respirat\w+|resp rate|rr|breath\w*){_GAP}(\d{{1,3}}) ?(?:times |breaths )?(?:a|per|/|in a"
    rf"|in one) ?min|\b(\d{{2,3}}) breaths (?:a|per) min"
)
_TEMPERATURE = re.compile(
    r"\b(?:temp(?:erature)?s?|fever|thermometer|rectal\w*|reading|running"
    r"|burning)\b(?:[^.!?\n\d]){0,30}(\d{2,3}(?:[.,]\d)?)"
    r"|\b(\d{2,3}(?:[.,]\d)?) ?(?:°|degrees|deg\b|f\b|c\b|celsius|fahrenheit|temp|fever|rectal)"
)
_GLUCOSE = re.compile(
    rf"\b(?:sugars?|glucose|bg|bgl|cgm|dexcom|libre|glucometer|meter|finger ?stick)\b{_GAP}{_N}\s?(mmol"
    rf"|mg)?(?!\s?(?:%|grams|g\b|times|years|hours|days|weeks|minutes))"
)
_GLUCOSE_HIGH = re.compile(
    r"\b(?:meter|glucometer|dexcom|libre|cgm|sugar|reading|it)\b[^.!?\n]{0,20}\b(?:says?|reads?|reading|showing"
    r"|shows?) (?:just )?[\"']?(hi|high|lo)\b"
)
_TROPONIN = re.compile(
    r"\btrop(?:onin)?s?\b[^.!?\n]{0,30}\b(?:high|raised|elevated|positive|up|rising|went up|abnormal|above)\b"
    r"|\b(?:high|raised|elevated|positive) trop\w*"
)
_LIMITS: tuple[tuple[str, str, float, float], ...] = (  # name, words for it, below, above: outside is an emergency
    ("potassium", r"potassium|\bk\+", 2.5, 6.4),
    ("sodium", r"sodium", 120, 158),
    ("haemoglobin", r"ha?emoglobin|\bhgb|\bhb", 6.0, 1e9),
    ("INR", r"\binr", 0, 7.9),
    ("lactate", r"lactate|lactic acid", 0, 3.9),
    ("calcium", r"\bcalcium(?! (?:score|supplement|tablet|pill|carbonate))", 6.0, 14.0),
    ("blood pH", r"\b(?:blood|arterial|venous) ph", 7.2, 7.6),
    ("neutrophils", r"\banc\b|absolute neutrophil\w*", -1, 1e9),
    ("lithium", r"lithium level", 0, 2.0),
    ("carboxyhaemoglobin", r"carboxyha?emoglobin|\bcohb", 0, 15),
)
_LAB_PATTERNS = tuple(
    (
        name,
        re.compile(
            rf"(?:{words})\b{_GAP}{_N}(?! ?(?:mg\b|mcg|m[ce][gq]|years|grams|tablets|pills|times|%|weeks|days))"
        ),
        low,
        high,
    )
    for name, words, low, high in _LIMITS
)
_AGE = re.compile(rf"\b{_COUNT}[ -]?(hour|day|week|month|year)s?[ -]?(?:old|of age)\b|\b(newborn)\b")
_SWALLOWED = re.compile(
    rf"\b(?:took|taken|taking|swallow\w*|ate|eaten|drank|downed|popped|ingested|chewed"
    rf"|had)\b[^.!?\n]{{0,25}}?\b{_COUNT}(?: or (?:so|\w+)| plus|ish)? ?(?:of (?:my|his|her|the|them"
    rf"|those) )?(?:[\w-]+ ){{0,3}}?"
    r"(?:pills?|tabs?|tablets?|caps(?:ules)?|tylenol|paracetamols?|acetaminophen|ibuprofens?|advils?|aspirins?"
    r"|panadols?|xanax|benadryls?|gummies|percocets?|oxys?|ambiens?)\b"
)
_TOO_MANY = 9
_AFTER = re.compile(
    r"\b(?:over|per|every|in|for) (?:the )?(?:last |past )?(?:a |\d+ )?(?:week|month|day|days|weeks|year)s?\b"
    r"|\b(?:a|per|each) (?:day|week|month)\b"
)


@dataclass(frozen=True, slots=True)
class Value:
    """A number that counts. `start` is where it stands; `weight` as in the rules; `what` says it in words."""

    kind: str
    weight: float
    what: str
    start: int


def age_months(text: str) -> float | None:
    """Age of the youngest person whose age is told, in months; None where none is."""
    ages = []
    for m in _AGE.finditer(text):
        ages.append(0.0 if m[3] else _number(m[1]) * _MONTHS[m[2]])
    return min(ages, default=None)


def values(text: str) -> Iterator[Value]:
    """The numbers in plain text (`clauses.plain`) that make an emergency or speak for one."""
    yield from _words(text)
    if not any(c.isdigit() for c in text) and not any(word in text for word in _NUMBERS):
        return
    yield from _oxygen(text)
    yield from _circulation(text)
    yield from _temperature(text)
    yield from _glucose(text)
    yield from _laboratory(text)
    for m in _SWALLOWED.finditer(text):
        if _number(m[1]) > _TOO_MANY and not _AFTER.match(text[m.end() :].lstrip()):
            yield Value("poisoning", 0.95, f"{m[1]} tablets taken", m.start())


def _oxygen(text: str) -> Iterator[Value]:
    for m in _OXYGEN.finditer(text):
        share = _number(m[1])
        if 40 <= share < 92:
            yield Value("breathing", 1.0 if share < 90 else 0.8, f"oxygen saturation {share:g} %", m.start())


def _circulation(text: str) -> Iterator[Value]:
    is_named = _PRESSURE_NAMED.search(text) is not None
    for m in _PRESSURE.finditer(text):
        upper, lower = int(m[1]), int(m[2])
        if not is_named or not (upper > lower + 8 and 50 <= upper <= 300 and 20 <= lower <= 190):
            continue
        if upper >= 180 or lower >= 120:
            yield Value("blood pressure", 0.8, f"blood pressure {upper}/{lower}", m.start())
        elif upper < 85:
            yield Value("low blood pressure", 0.8, f"blood pressure {upper}/{lower}", m.start())
        elif upper >= 140 or lower >= 90:
            yield Value("raised pressure", 0.0, f"blood pressure {upper}/{lower}", m.start())
    for m in _SYSTOLIC.finditer(text):
        if 180 <= int(m[1]) <= 300 or 50 <= int(m[1]) < 80:
            yield Value("blood pressure", 0.7, f"systolic pressure {m[1]}", m.start())
    for m in _PULSE.finditer(text):
        rate = int(m[1] or m[2])
        if 130 < rate <= 300:
            yield Value("heart rhythm", 0.8 if rate > 145 else 0.6, f"pulse {rate}", m.start())
        elif 20 <= rate < 40:
            yield Value("heart rhythm", 0.7, f"pulse {rate}", m.start())
    for m in _BREATHS.finditer(text):
        if 30 <= int(m[1] or m[2]) <= 120:
            yield Value("breathing", 0.6, f"{m[1] or m[2]} breaths a minute", m.start())


def _temperature(text: str) -> Iterator[Value]:
    months = age_months(text)
    for m in _TEMPERATURE.finditer(text):
        degrees = _number(m[1] or m[2])
        celsius = (degrees - 32) / 1.8 if degrees > 80 else degrees
        if not 25 <= celsius <= 44:
            continue
        if celsius >= 37.95 and months is not None and months < 3:
            yield Value("sick infant", 1.0, f"{degrees:g} degrees in an infant under three months", m.start())
        elif celsius < 35.05 and (degrees < 80 or degrees < 95.1):
            yield Value("cold", 0.7, f"temperature {degrees:g}", m.start())
        elif celsius >= 40.5:
            yield Value("high fever", 0.7, f"temperature {degrees:g}", m.start())
        elif celsius >= 37.95:
            yield Value("fever", 0.0, f"temperature {degrees:g}", m.start())


def _glucose(text: str) -> Iterator[Value]:
    for m in _GLUCOSE.finditer(text):
        level, unit = _number(m[1]), m[2]
        is_mmol = unit == "mmol" or (unit is None and (level < 35 and ("." in m[1] or level < 20)))
        level *= 18 if is_mmol else 1
        if 15 <= level < 54:
            yield Value("diabetic", 0.9, f"glucose {m[1]}", m.start())
        elif 400 < level <= 1500:
            yield Value("diabetic", 0.8, f"glucose {m[1]}", m.start())


def _words(text: str) -> Iterator[Value]:
    """Values told without a number."""
    if "sugar" in text or "glucose" in text or "diabet" in text or "insulin" in text:
        for m in _GLUCOSE_HIGH.finditer(text):
            yield Value("diabetic", 0.9, f"the meter reads {m[1]}", m.start())
    for m in _TROPONIN.finditer(text):
        yield Value("heart attack", 0.9, "troponin raised", m.start())


def _laboratory(text: str) -> Iterator[Value]:
    for name, pattern, low, high in _LAB_PATTERNS:
        for m in pattern.finditer(text):
            value = _number(m[1])
            if (value < low or value > high) and not (name == "haemoglobin" and value < 3):
                yield Value("laboratory value", 0.9, f"{name} {m[1]}", m.start())


def _number(word: str) -> float:
    return float(_NUMBERS[word]) if word in _NUMBERS else float(word.replace(",", "."))
