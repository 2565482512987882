"""The recipe's `evaluate` section: who answers the test questions, and what is measured.

Not covered: the rest of the recipe (`recipe`). Validation checks; it never edits.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from medtune.recipe_section import Section

SystemName = Literal["random", "nearest", "base", "few_shot", "tuned", "retrieval", "assistant"]


class Endpoint(Section):
    """A model behind an OpenAI-compatible URL, measured beside the tuned one; the key comes from MEDTUNE_ENGINE_KEY."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What the system is called in the report."""
    url: str = Field(min_length=1)
    """Where the server listens, as http://localhost:8000/v1; the test questions are sent there."""
    model: str = Field(min_length=1)
    """Name of the model at that server."""


class ChoiceTest(Section):
    """Questions with options, of which the model must find the right one most likely."""

    layout: Literal["medmcqa", "medqa", "pubmedqa"]
    """MedMCQA (opa to opd, cop), MedQA (options, answer_idx) or PubMedQA (context, final_decision: yes, no, maybe)."""
    path: str = Field(min_length=1)
    """Local file or Hub data set id."""
    revision: str | None = None
    """Git revision of a Hub data set."""
    split: str = "test"
    """Which split of a Hub data set; it must give the right answers."""
    limit: int | None = Field(500, ge=1)
    """Take only this many questions, spread evenly; null takes all."""


class EvaluateSection(Section):
    """What is measured on the held-out test split."""

    systems: tuple[SystemName, ...] = Field(("random", "nearest", "base", "tuned"), min_length=1)
    """A random or the nearest training answer, base, base with examples, tuned, the best passage, the assistant."""
    endpoints: tuple[Endpoint, ...] = ()
    """Models behind a URL (vLLM, llama.cpp, Ollama, a hosted one) that answer the same questions."""
    shots: int = Field(3, ge=1)
    """Answered training questions that the system `few_shot` (the base) is shown before each question."""
    choices: tuple[ChoiceTest, ...] = ()
    """Multiple-choice tests for base and tuned, by the likelihood of each option; one for each layout."""
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
    """Questions printed in the report with all answers; the others are there to search and filter. 0 shows none."""

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluateSection:
        names = [*get_args(SystemName), *(endpoint.name for endpoint in self.endpoints)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"evaluate.endpoints: the name {twice} stands for another system. Choose another name.")
        return self
