"""The fixed texts of an emergency and a crisis: whole for every kind, country and language; risk never lowers help."""

from __future__ import annotations

import re

import pytest
import yaml

from medtune.assistant import crisis, emergency, rulebook
from medtune.assistant.escalation import TEXTS, escalation, number, phone
from medtune.types import Verdict

COUNTRIES = list(yaml.safe_load((TEXTS / "numbers.yaml").read_text(encoding="utf-8")))
NUMBER_KINDS = {"blood pressure", "low blood pressure", "laboratory value", "high fever", "cold"}  # of `vitals` alone
KINDS = sorted({rule.kind for rule in rulebook.load(emergency.RULES).rules} | NUMBER_KINDS)
LANGUAGES = ("en", "es")
METHODS = re.compile(
    r"\b(?:overdose|hang|jump|shoot|cut|dose|pills|sobredosis|ahorc|salt[ae]|dispar|pastillas)\w*", re.I
)


def said(guard: str, kind: str, country: str = "US", language: str = "en") -> list[str]:
    sections = escalation(Verdict(guard, True, 0.9, "why", kind), country, language)
    return [sentence.text for section in sections for sentence in section.sentences]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("country", COUNTRIES)
def test_a_reply_in_an_emergency_leads_with_the_number_of_the_country(country: str, language: str) -> None:
    first = said("emergency", "stroke", country, language)[0]
    assert number("emergency", country, language) in first


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_that_the_rules_know_has_its_own_text(language: str) -> None:
    general = said("emergency", "other", "US", language)
    for kind in KINDS:
        assert kind == "named diagnosis" or said("emergency", kind, "US", language) != general, kind


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_keeps_an_unfilled_place(language: str) -> None:
    for kind in [*KINDS, "unheard of"]:
        assert not [text for text in said("emergency", kind, "GB", language) if "{" in text or not text.strip()]


def test_what_the_classifier_alone_finds_gets_the_general_text() -> None:
    assert said("emergency", "") == said("emergency", "other")


def test_an_unknown_country_gets_the_commonest_numbers() -> None:
    assert "112 or 911" in said("emergency", "stroke", "XX")[0]
    assert phone("XX") == "112"


def test_the_link_dials_digits_that_the_text_names() -> None:
    for country in COUNTRIES:
        assert phone(country).isdigit()
        assert phone(country) in number("emergency", country, "en")


def test_poisoning_names_the_poison_line_after_the_emergency_number() -> None:
    text = " ".join(said("emergency", "poisoning", "US"))
    assert text.index("911") < text.index("1-800-222-1222")


def test_a_stroke_is_given_nothing_to_swallow_and_an_allergy_the_injector() -> None:
    assert any("no aspirin" in text for text in said("emergency", "stroke"))
    assert "auto-injector" in said("emergency", "anaphylaxis")[3]


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_never_shrinks_as_the_risk_grows(language: str) -> None:
    ideation, harm, plan = (set(said("crisis", kind, "US", language)) for kind in ("ideation", "self-harm", "plan"))
    assert ideation < harm < plan


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", crisis.RISK)
def test_a_crisis_names_the_line_and_no_method(kind: str, language: str) -> None:
    text = " ".join(said("crisis", kind, "US", language))
    assert "988" in text
    assert "911" in text
    assert not METHODS.search(text)


def test_a_plan_calls_the_emergency_number_before_the_line() -> None:
    text = " ".join(said("crisis", "plan", "GB"))
    assert text.index("999") < text.index("116 123")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_crisis_line_stands_in_the_text_of_its_country(language: str) -> None:
    for country in COUNTRIES:
        assert number("crisis", country, language) in " ".join(said("crisis", "ideation", country, language))


def test_both_languages_know_the_same_kinds() -> None:
    english, spanish = (
        yaml.safe_load((TEXTS / f"escalation.{language}.yaml").read_text(encoding="utf-8")) for language in LANGUAGES
    )
    assert english["emergency"].keys() == spanish["emergency"].keys()
    for kind, entry in english["emergency"].items():
        assert len(entry.get("do", [])) == len(spanish["emergency"][kind].get("do", [])), kind
        assert "as" in entry or entry["source"].startswith("https://"), kind


def test_a_language_without_texts_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        escalation(Verdict("emergency", True, 1.0, "why", "stroke"), "US", "xx")
