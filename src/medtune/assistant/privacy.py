"""Masks personal data before anything is stored or logged: by rules, since a miss must be explainable.

Covered: e-mail, telephone, street addresses, postcodes, record, insurance and identity numbers, US social security,
NHS, Spanish DNI, IBAN and card numbers (with their checksums), dates of birth, names that a message introduces
("my name is", "my son Tyler", a signature) and each further mention of them. English and Spanish.
Not covered: names without such a cue, places alone, other dates, pictures. Illnesses called after people, medicines,
values, doses and ages stay: they are what the message is about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import yaml

_WORDS = yaml.safe_load((Path(__file__).parent / "privacy_words.yaml").read_text(encoding="utf-8"))
_EPONYMS, _NO_NAMES = (frozenset(_WORDS[key].split()) for key in ("eponyms", "others"))

_RELATIVE = (
    r"son|daughter|husband|wife|mother|mom|mum|father|dad|brother|sister|baby|boy|girl|child|grandson|granddaughter"
    r"|grandma|grandmother|"
    r"grandpa|grandfather|uncle|aunt|cousin|nephew|niece|friend|girlfriend|boyfriend|partner|fianc[eé]e?|roommate"
    r"|neighbou?r|patient|"
    r"hijo|hija|esposo|esposa|marido|madre|padre|mamá|papá|hermano|hermana|abuelo|abuela"
)
_WORD = r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*"
_CAPITAL = r"[A-ZÀ-Þ][a-zß-ÿ]+(?:['’-][A-ZÀ-Þ][a-zß-ÿ]+)*"
_DATE = (
    r"(?:\d{1,4}[-/. ]\d{1,2}[-/. ]\d{2,4}|\d{1,2}(?:st|nd|rd|th)? (?:of |de )?[A-Za-z]{3,10},? (?:de )?\d{2,4}|"
    r"[A-Za-z]{3,9}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{2,4})"
)
_STREET = r"street|avenue|ave|road|rd|boulevard|blvd|lane|highway|hwy|parkway|pkwy|terrace|crescent|apartments"
_VAGUE_STREET = r"St|Drive|Dr|Way|Court|Ct|Place|Pl|Close|Square|Sq|Circle|Cir|Trail|Row|Gardens|Grove|Hill"
_NUMBERED = (
    r"medical record|mrn|patient|chart|hospital|record|member(?:ship)?|policy|insurance|subscriber|group|medicare"
    r"|medicaid|"
    r"passport|driver'?s? licen[cs]e|licen[cs]e|national insurance|nhs|health card|case|claim|account|prescription"
    r"|rx|dni|nie|nif|"
    r"curp|nss|historia cl[ií]nica|p[oó]liza|expediente|pasaporte|social security|ssn|tax"
)

_SURE = (
    r"mrn|medical record|policy|medicare|medicaid|passport|national insurance|nhs|dni|nie|nif|curp|nss|pasaporte|ssn"
)


def _luhn(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(digits)]
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _nhs(text: str) -> bool:
    digits = [int(c) for c in text if c.isdigit()]
    check = 11 - sum(d * (10 - i) for i, d in enumerate(digits[:9])) % 11
    return len(digits) == 10 and check % 11 == digits[9]


def _iban(text: str) -> bool:
    plain = "".join(text.split()).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _dni(text: str) -> bool:
    plain = re.sub(r"\W", "", text).upper()
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(plain[:8]) % 23] == plain[8]


def _ssn(text: str) -> bool:
    return text[:3] not in ("000", "666") and text[0] != "9" and text[4:6] != "00" and text[7:] != "0000"


def _phone(text: str) -> bool:
    return 7 <= sum(c.isdigit() for c in text) <= 15


def _always(_: str) -> bool:
    return True


# (kind, pattern, check): the group `it` is masked, else the whole match. Order matters: what is surer comes first.
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"), _always),
    ("id", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban),
    ("card", re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])"), _luhn),
    ("id", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _ssn),
    ("id", re.compile(r"(?<![\d.,-])\d{3}[ -]?\d{3}[ -]?\d{4}(?![\d-])(?<=\d)"), _nhs),
    ("id", re.compile(r"\b\d{8}[- ]?[A-HJ-NP-TV-Z]\b"), _dni),
    (
        "id",
        re.compile(
            rf"\b(?:{_NUMBERED})s?(?:['’]s)?\s*(?:(?:id(?:entification)?|number|no\.?|nr\.?|num\.?|n[úu]mero|card"
            rf"|file)\b\W*|#\W*)"
            r"{1,3}(?:\s*(?:is|was"
            r"|es)\b)?\W{0,3}(?P<it>(?=(?:[A-Z/ -]{0,5}\d){4})(?-i:[A-Z0-9]+(?:[- /][A-Z0-9]{2,}){0,5}))\b",
            re.I,
        ),
        _always,
    ),
    (
        "id",
        re.compile(rf"\b(?:{_SURE})(?:\s*(?:is|was|es)\b)?\W{{0,3}}(?P<it>(?=(?:[A-Z-]*\d){{5}})[A-Z0-9-]+)\b", re.I),
        _always,
    ),
    (
        "birth_date",
        re.compile(
            r"\b(?:d\.?o\.?b\.?|date of birth|birth ?da(?:te|y)|born|nacid[oa]|naci(?:ó)?|nací|fecha de nacimiento)"
            rf"\W*(?:(?:is|was|on|es|el|in)\W*){{0,2}}(?P<it>{_DATE})",
            re.I,
        ),
        _always,
    ),
    (
        "phone",
        re.compile(
            r"\b(?:tel(?:ephone|[eé]fono)?|phone|cell|mobile|m[oó]vil|celular|fax|call|text|whatsapp|reach|contact"
            r"|ll[aá]m[ae]\w*)\b"
            r"[^\d\n]{0,25}(?P<it>\+?\(?\d[\d ().-]{5,18}\d)(?! ?(?:mg|ml|mcg|%|years?|days?|times))",
            re.I,
        ),
        _phone,
    ),
    ("phone", re.compile(r"(?<![\w.])\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}(?!\w)"), _phone),
    ("phone", re.compile(r"(?<![\w.,/-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w/-])"), _phone),
    ("phone", re.compile(r"(?<![\w.,/-])(?:0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}|0\d{9,10}|[679]\d{2}(?: \d{2}){3}"
        r"|[679]\d{2} \d{3} \d{3})(?![\w/-])"), _phone),
    ("address", re.compile(r"\bP\.? ?O\.? ?Box \d+", re.I), _always),
    (
        "address",
        re.compile(
            rf"\b\d{{1,5}}[A-Za-z]?,? (?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?(?:{_WORD}\.? "
            rf"|\d{{1,3}}(?:st|nd|rd|th) )"
            rf"{{1,3}}?(?:{_STREET})\b\.?(?:,? (?:apt|apartment|unit|suite|#)\.? ?\w+)?",
            re.I,
        ),
        lambda text: not set(text.lower().split()) & _NO_NAMES,
    ),
    (
        "address",
        re.compile(
            rf"\b\d{{1,5}} (?:(?:[NSEW]|NE|NW|SE|SW)\.? )?(?:{_CAPITAL} |\d{{1,3}}(?:st|nd|rd|th) "
            rf"){{1,3}}(?:{_VAGUE_STREET})\b\.?"
            r"(?:,? (?:[Aa]pt|[Uu]nit|[Ss]uite|#)\.? ?\w+)?"
        ),
        _always,
    ),
    (
        "address",
        re.compile(rf"\b(?:calle|avenida|avda\.?|paseo|plaza|carrera|c/) ?(?:(?:de|del|la|los|las) )*{_WORD}(?: "
            rf"{_WORD}){{0,3}},? (?:n[º°.]? ?)?\d{{1,4}}\b", re.I),
        _always,
    ),
    ("address", re.compile(r"\b(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA"
        r"|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]),? \d{5}(?:-\d{4})?\b"), _always),
    ("address", re.compile(r"\b[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}\b"), _always),
)  # fmt: skip

_NAME_CUES = (
    re.compile(rf"\b(?i:my (?:full |first |last )?name is|my name's|name\s?[:=]|(?:they )?call me|me llamo|mi nombre "
        rf"es|nombre\s?:)\s*(?P<it>{_WORD}(?: {_WORD}){{0,3}})"),
    re.compile(rf"\b(?:I am|I'm|I’m|[Tt]his is|[Ss]oy) (?P<it>{_CAPITAL} (?:[A-Z]\.? )?{_CAPITAL})(?! (?i:disease"
        rf"|syndrome|patient|survivor))"),
    re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sra?|Dra|Don|Doña)\b\.? (?P<it>{_CAPITAL}(?: {_CAPITAL})?)"),
    re.compile(rf"\b(?i:my|our|mi|nuestr[oa])(?: \w+)? (?i:{_RELATIVE})(?:,| named| called| is called|'s name is| se "
        rf"llama)? (?P<it>{_CAPITAL}(?: {_CAPITAL})?)"),
    re.compile(rf"\b(?i:{_RELATIVE})(?: (?:named|called|is called|se llama)|['’]s name is|'s name:) (?P<it>{_WORD})"),
    re.compile(rf"(?:^|\n|[.!?,] )\s*(?i:(?:kind |best |warm )?regards|sincerely|yours (?:truly|sincerely)|thank you"
        rf"|thanks|cheers|saludos|atentamente|gracias)[,.!]?\s+(?P<it>{_CAPITAL}(?:[ \t]{_CAPITAL}){{0,2}})\.?\s*$"),
)  # fmt: skip


def mask(text: str) -> tuple[str, Mapping[str, int]]:
    """`text` with personal data replaced by [EMAIL], [PHONE], [ADDRESS], [ID], [CARD], [BIRTH_DATE] and [NAME], and
    how many of each there were."""
    counts: Counter[str] = Counter()
    names = _names(text)
    for kind, pattern, is_valid in _RULES:
        text = pattern.sub(partial(_replaced, kind, is_valid, counts), text)
    for name in sorted(names, key=len, reverse=True):
        text, found = re.subn(rf"(?<![\w\[]){re.escape(name)}(?:['’]s)?(?![\w\]])", "[NAME]", text)
        counts["name"] += found
    return text, dict(+counts)


def _replaced(kind: str, is_valid: Callable[[str], bool], counts: Counter[str], match: re.Match[str]) -> str:
    it = match.groupdict().get("it") or match.group()
    if not is_valid(it):
        return match.group()
    counts[kind] += 1
    start = match.start("it") - match.start() if "it" in match.groupdict() else 0
    whole = match.group()
    return f"{whole[:start]}[{kind.upper()}]{whole[start + len(it) :]}"


def _names(text: str) -> set[str]:
    """The names that are introduced, whole and in their parts."""
    found: set[str] = set()
    for cue in _NAME_CUES:
        for match in cue.finditer(text):
            words: list[str] = []
            for word in match["it"].split():
                plain = re.sub(r"['’]s$|[.,]", "", word).lower()
                if plain in _NO_NAMES or (plain in _EPONYMS and not words):
                    break
                words.append(re.sub(r"['’]s$", "", word).rstrip(".,"))
            if words:
                found |= {" ".join(words), *(word for word in words if len(word) > 2 and word[0].isupper())}
    return {name for name in found if name.lower() not in _EPONYMS | _NO_NAMES}
