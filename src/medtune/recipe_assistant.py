"""The recipe's `assistant` section: what it may quote, what guards it, how it answers.

Not covered: the rest of the recipe (`recipe`). Validation checks; it never edits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medtune.recipe_section import Section

Country = Literal["", "US", "CA", "GB", "IE", "AU", "NZ", "IN", "ZA", "EU", "MX", "ES", "AR", "CO", "CL", "PE"]


class KnowledgeSource(Section):
    """Where passages come from: the starter library, any layout of the data stage, or a folder of documents."""

    path: str = Field(min_length=1)
    """Local file, folder or archive; `starter` for the written library that comes with medtune."""
    layout: str = "library"
    """A data layout (`medtune data --layouts`), or `documents` for Markdown, text, HTML and PDF files."""
    title: str = ""
    """Shown as the source where a passage has no title of its own."""
    url: str = ""
    """Shown where a passage has no URL of its own."""
    date: str = ""
    """When the text was published or last reviewed, as YYYY-MM-DD."""
    licence: str = ""
    """Licence of the text."""
    columns: dict[str, str] = {}
    """Names of columns that differ from the layout's own."""


class KnowledgeSection(Section):
    """What the assistant may quote, and how it is searched."""

    sources: tuple[KnowledgeSource, ...] = (KnowledgeSource(path="starter"),)
    """Where the passages come from; none at all leaves every sentence unsupported."""
    encoder: str = "auto"
    """Sentence encoder: `auto` (MiniLM where it is installed, else words alone), `none`, a Hub id or a local folder."""
    passages: int = Field(4, ge=1, le=20)
    """Passages that an answer may rest on."""


class GuardsSection(Section):
    """Thresholds of the guards. They are chosen on data (`medtune guard train`); change them only with figures."""

    emergency: float | None = Field(None, gt=0, lt=1)
    """Score from which a message is taken for an emergency; null takes the trained threshold."""
    crisis: float | None = Field(None, gt=0, lt=1)
    """Score from which a message is taken for a crisis; null takes the trained threshold."""
    scope: float | None = Field(None, gt=0, lt=1)
    """Score under which a message is taken for no health question; null takes the trained threshold."""


class AssistantSection(Section):
    """How the assistant answers."""

    knowledge: KnowledgeSection = KnowledgeSection()
    """What it may quote."""
    guards: GuardsSection = GuardsSection()
    """What it must recognise before it answers."""
    country: Country = ""
    """Whose emergency and crisis numbers are given; empty names the commonest of the world."""
    language: Literal["en", "es"] = "en"
    """Language of the fixed texts."""
    answer: Literal["auto", "quote", "generate"] = "auto"
    """`quote` takes the passages' own words and lets the model phrase the lead; `generate` answers from passages."""
    unsupported: Literal["drop", "mark"] = "drop"
    """What happens to a generated sentence that no passage supports."""
    support: float = Field(0.6, ge=0, le=1)
    """Support score from which a generated sentence counts as backed by a passage."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens that the model may write."""
    disclaimer: str = ""
    """Text under every answer; empty takes medtune's own in the chosen language."""
