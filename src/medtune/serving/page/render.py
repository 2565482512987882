"""Turns to HTML. Everything that a user, a model or a passage wrote is escaped by the template engine.

Covered: one turn (settled or still coming), the start page, a run's report. Not covered: what happens on a click
(`page.js`, `chat`). Links open only where they lead to http or https.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medtune.serving.page.talk import Turn
from medtune.serving.page.texts import Texts

HERE = Path(__file__).parent


def turns(shown: Sequence[Turn], texts: Texts, *, first: int = 0, **options: Any) -> str:
    """The turns, numbered from `first`. Options: `can_rate`, `is_live`, `is_side` (no actions), `is_last`."""
    defaults = {"can_rate": False, "is_live": False, "is_side": False, "total": first + len(shown)}
    return _environment().get_template("turns.html.j2").render(turns=shown, t=texts, first=first, **defaults | options)


def start(texts: Texts) -> str:
    """What stands there before the first question."""
    return _environment().get_template("start.html.j2").render(t=texts)


def report(html: str, texts: Texts) -> str:
    """A run's report.html in a frame of its own, without scripts and without rights."""
    return _environment().get_template("report.html.j2").render(html=html, t=texts)


def header(texts: Texts, others: Mapping[str, str]) -> str:
    """The page's title, links to its other languages (name to path), and what to do in an emergency."""
    return _environment().get_template("header.html.j2").render(t=texts, others=others)


def notice(*lines: str) -> str:
    """Small print, one paragraph a line."""
    return Markup("").join(Markup('<p class="small">{}</p>').format(line) for line in lines)


def status(text: str, *, is_shown: bool = False) -> str:
    """What a screen reader says when it changes; for the eye, too, where `is_shown`."""
    return Markup('<p role="status" class="{}">{}</p>').format("" if is_shown else "visually-hidden", text)


def is_link(url: str) -> bool:
    """Whether a source's URL may become a link."""
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


def phone_link(phone: str) -> str:
    """A number for a `tel:` link: digits and a leading plus."""
    return "".join(character for character in phone if character.isdigit() or character == "+")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medtune.serving.page", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.tests["link"] = is_link
    environment.filters["phone"] = phone_link
    return environment
