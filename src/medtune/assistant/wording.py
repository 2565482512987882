"""The assistant's own words: headings, refusals, notices and disclaimers, from texts/reply.LANGUAGE.yaml.

Not covered: what is said in an emergency or a crisis (`escalation`), what a model is told (`prompts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from medtune.types import Sentence

TEXTS = Path(__file__).parent / "texts"


@dataclass(frozen=True)
class Wording:
    """The texts of one language; `phone` is how they name the emergency number."""

    language: str
    phone: str
    texts: dict[str, Any]

    def line(self, key: str) -> str:
        """The text called `key`, on one line."""
        return " ".join(str(self.texts[key]).format(phone=self.phone).split())

    def heading(self, section: str) -> str:
        """The heading over a section; empty where it has none."""
        return str(self.texts["headings"].get(section, ""))

    def fixed(self, key: str, kind: str = "") -> tuple[Sentence, ...]:
        """The sentences called `key`; of a text with kinds those of `kind`, or of `other` where there are none."""
        found = self.texts[key]
        lines: list[str] = found[kind if kind in found else "other"] if isinstance(found, dict) else found
        return tuple(Sentence(line.format(phone=self.phone), "fixed") for line in lines)


def wording(language: str, phone: str) -> Wording:
    """The texts of `language` (`en` or `es`) for a country whose emergency number is named `phone`."""
    return Wording(language, phone, _texts(language))


@cache
def _texts(language: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TEXTS / f"reply.{language}.yaml").read_text(encoding="utf-8"))
    return found
