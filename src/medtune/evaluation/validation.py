"""One system on validation questions: what experiments are chosen by, so that the test split is left alone.

Covered: base or tuned, resumable. Not covered: the test (`stage`), costs, the report.
"""

from __future__ import annotations

from pathlib import Path

from medtune.data.stage import load_split
from medtune.evaluation import systems
from medtune.evaluation.candidates import candidates
from medtune.evaluation.runner import RecordFile, ask
from medtune.evaluation.selftest import self_test
from medtune.recipe import Recipe
from medtune.run_dir import RunDir
from medtune.types import Record


def answer(recipe: Recipe, run_dir: RunDir, system: str, path: Path) -> list[Record]:
    """The records of `system` (`base` or `tuned`) on `sweep.questions` validation questions, kept in `path`."""
    validation = load_split(run_dir, "validation")
    questions = systems.draw(validation, recipe.sweep.questions)
    self_test([question.answer for question in questions])
    alone = recipe.evaluate.model_copy(update={"systems": (system,)})
    records = RecordFile(path)
    (candidate,) = candidates(recipe.model_copy(update={"evaluate": alone}), run_dir, validation)
    answered = ask(candidate.system, questions, records, recipe.evaluate.batch_size)
    records.rewrite()
    return answered
