"""What is said in an emergency or a crisis: fixed text, before anything is generated.

Covered: the number to call by country, what it may be, what to do until help comes, crisis and poison lines; English
and Spanish (`texts/escalation.LANGUAGE.yaml`, `texts/numbers.yaml`). A crisis reply for a higher risk holds everything
that the reply for a lower one holds; none names a method.
Not covered: whether it is an emergency (`emergency`) or a crisis (`crisis`); other notices (`wording`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from medtune.types import ReplySection, Sentence, Verdict

TEXTS = Path(__file__).parent / "texts"
NAME = "escalation"


def escalation(verdict: Verdict, country: str, language: str) -> tuple[ReplySection, ...]:
    """The sections for an emergency or crisis verdict. An unknown `country` gets the world's commonest numbers; a kind
    without a text of its own the general one. Raises KeyError for a language without texts."""
    texts = _texts(language)
    lines = {key: number(key, country, language) for key in ("emergency", "poison", "crisis")}
    return _crisis(verdict.kind, texts, lines) if verdict.guard == "crisis" else _emergency(verdict.kind, texts, lines)


def phone(country: str) -> str:
    """The emergency number as a telephone dials it (tel: link); by default 112, which most mobile networks know."""
    return str(_countries().get(country, _countries()[""])["link"])


def number(key: str, country: str, language: str) -> str:
    """How a text names the `emergency`, `poison` or `crisis` number of a country."""
    entry = _countries().get(country, _countries()[""])[key]
    return str(entry[language] if isinstance(entry, dict) else entry)


def _emergency(kind: str, texts: dict[str, Any], lines: dict[str, str]) -> tuple[ReplySection, ...]:
    entry = texts["emergency"].get(kind, texts["emergency"]["other"])
    entry = texts["emergency"][entry["as"]] if "as" in entry else entry
    headings = texts["headings"]
    return (
        _section(headings["call"], [*texts["call"], entry["may_be"]], lines),
        _section(headings["do"], [*entry["do"], *texts["not_sure"]], lines),
    )


def _crisis(kind: str, texts: dict[str, Any], lines: dict[str, str]) -> tuple[ReplySection, ...]:
    said = texts["crisis"]
    if kind == "third party":
        section = _section(texts["headings"]["crisis_third"], [*said["third_open"], *said["third party"]], lines)
        return (section,)
    if kind == "self-harm":
        steps = [*said["line"], *said["self-harm"], *said["ideation"]]
    else:  # what a classifier alone recognises has no kind: it is taken for ideation
        steps = [*said["line"], *said["ideation"]]
    if kind == "plan":
        steps = [*said["plan"], *said["line"], *said["self-harm"], *said["ideation"]]
    return (_section(texts["headings"]["crisis"], [*said["open"], *steps], lines),)


def _section(heading: str, sentences: list[str], lines: dict[str, str]) -> ReplySection:
    filled = (s.format(phone=lines["emergency"], poison=lines["poison"], crisis=lines["crisis"]) for s in sentences)
    return ReplySection(NAME, heading, tuple(Sentence(text, "fixed") for text in filled))


@cache
def _texts(language: str) -> dict[str, Any]:
    path = TEXTS / f"{NAME}.{language}.yaml"
    if not path.exists():
        raise KeyError(language)
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@cache
def _countries() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((TEXTS / "numbers.yaml").read_text(encoding="utf-8"))
    return found
