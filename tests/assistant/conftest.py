"""An assistant in parts that a test can swap: guards that say what they are told, a small library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from medtune.assistant.assistant import Assistant
from medtune.assistant.words import content
from medtune.recipe_assistant import AssistantSection
from medtune.types import Hit, Message, Passage, Verdict

SECTIONS = {
    "In short": "Asthma makes the airways swell and tighten at times. Good treatment lets most people live well.",
    "About": "Smoke, pollen and cold air can set it off. It is not contagious. Inhalers open the airways in 5 minutes.",
    "What you can do": "Keep a written action plan at home. Let no one smoke in the house.",
    "When to see a doctor": "Book a visit if you need the relief inhaler more than 2 times a week.",
    "When it is an emergency": "Call an ambulance if blue lips appear.",
}
PASSAGES = [
    Passage(f"asthma-{i}", text, "Asthma", name, "https://example.org/asthma", "2025-01-31", "CC0", "starter")
    for i, (name, text) in enumerate(SECTIONS.items())
]
QUESTION = (Message("user", "What sets off asthma?"),)


def verdicts(**fired: Verdict) -> dict[str, Verdict]:
    """All guards quiet but for those named."""
    quiet = {name: Verdict(name, name == "scope", float(name == "scope"), "quiet") for name in GUARDS}
    return {**quiet, **fired}


GUARDS = ("emergency", "crisis", "scope", "injection", "advice")


def search(text: str, k: int) -> list[Hit]:
    """The passages that share the most words with the question."""
    asked = set(content(text))
    found = [Hit(p, float(len(asked & set(content(f"{p.title} {p.text}"))))) for p in PASSAGES]
    return sorted((hit for hit in found if hit.score), key=lambda hit: -hit.score)[:k]


@pytest.fixture
def make() -> Callable[..., Assistant]:
    """`make(engine=..., section={...}, verdicts={...} or a function)`: an assistant on the small library."""

    def build(section: Mapping[str, Any] | None = None, fired: Any = None, **parts: Any) -> Assistant:
        check = fired if callable(fired) else lambda _: verdicts(**(fired or {}))
        values: dict[str, Any] = {
            "section": AssistantSection.model_validate({"country": "US", **(section or {})}),
            "check": check,
            "search": search,
            "neighbours": lambda passage: [p for p in PASSAGES if p.title == passage.title],
        }
        return Assistant(**{**values, **parts})

    return build


@pytest.fixture
def asked() -> Sequence[Message]:
    return QUESTION
