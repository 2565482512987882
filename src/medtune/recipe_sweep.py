"""The recipe's `sweep` section: which experiments are tuned, and by what the best one is chosen.

Not covered: the rest of the recipe (`recipe`), running experiments (`sweep`). Validation checks; it never edits.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from medtune.recipe_section import Section


class SearchRange(Section):
    """The values that a search may give to one option: `low` to `high`, or one of `choices`."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Search evenly over the logarithm, as for a learning rate."""
    whole: bool = False
    """Whole numbers only."""
    choices: tuple[str | int | float | bool, ...] = ()
    """Values to choose from, in place of `low` and `high`."""

    @model_validator(mode="after")
    def _one_kind_of_range(self) -> SearchRange:
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("give either choices, or low and high")
        if not self.choices and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and (self.low or 0) <= 0:
            raise ValueError(f"log needs low above 0 (got {self.low})")
        return self


class SweepSection(Section):
    """Experiments to tune and compare (`medtune sweep`); chosen by the validation split alone."""

    experiments: tuple[dict[str, Any], ...] = ()
    """Options of each experiment under a name, as `{name: high-lr, tune.learning_rate: 1.0e-4}`."""
    space: dict[str, SearchRange] = {}
    """Options to search, as `tune.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}`."""
    trials: int = Field(20, ge=1)
    """Experiments that the search of `sweep.space` makes."""
    prune: bool = True
    """End a trial of the search early when its validation loss is worse than the median at that step."""
    choose_by: Literal["validation_loss", "rouge_l", "bits_per_byte"] = "validation_loss"
    """What the winner is best in, on validation; losses compare only where tokenizer and prompt format are the same."""
    questions: int = Field(100, ge=1)
    """Validation questions that every experiment answers."""

    @model_validator(mode="after")
    def _names(self) -> SweepSection:
        names = [experiment.get("name") for experiment in self.experiments]
        wrong = [n for n in names if not isinstance(n, str) or not n.replace("-", "").replace("_", "").isalnum()]
        if wrong:
            raise ValueError(f"every one of sweep.experiments needs a name of letters, digits, '-' and '_': {wrong[0]}")
        if len(set(names)) < len(names):
            raise ValueError(f"sweep.experiments: a name stands twice ({', '.join(map(str, names))})")
        return self
