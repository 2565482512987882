"""The recipe's `evaluate` section: who answers the test questions, and what is measured.

Not covered: the rest of the recipe (`recipe`). Validation checks; it never edits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medtune.recipe_section import Section


class EvaluateSection(Section):
    """What is measured on the held-out test split."""

    systems: tuple[Literal["random", "nearest", "base", "tuned", "retrieval", "assistant"], ...] = Field(
        ("random", "nearest", "base", "tuned"), min_length=1
    )
    """A random or the nearest training answer, the base, the tuned, the best passage (retrieval), the assistant."""
    questions: int | None = Field(850, ge=1)
    """Test questions, drawn evenly over the topics; null takes all. 850 resolve .02 ROUGE-L."""
    max_new_tokens: int = Field(256, ge=1)
    """Tokens an answer may have; how many answers were cut off by it is reported."""
    batch_size: int = Field(32, ge=1)
    """Questions answered at once."""
    latency_questions: int = Field(10, ge=1)
    """Questions answered one at a time to measure the latency."""
    encoder: str = "auto"
    """Measures how near an answer's meaning is to the reference's: `auto`, `none`, a Hub id or a local folder."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap resamples for the 95 % intervals, and as many random swaps for the p values."""
    side_by_side: int = Field(20, ge=0)
    """Questions shown in the report with the reference and the answers of base and tuned."""
