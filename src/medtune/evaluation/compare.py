"""`medtune compare`: any runs side by side, paired on the questions that they share.

Covered: runs with the same test questions, whatever their base, method and options. Not covered: running anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from medtune.evaluation import experiments
from medtune.evaluation.metrics import PRIMARY
from medtune.evaluation.statistics import Bootstrap
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, write_json, write_text


def run(runs: Sequence[tuple[Recipe, RunDir]], out: Path) -> dict[str, Any]:
    """Print the table and write `out`/comparison.{json,csv,html}. The first run's base is the baseline.

    Raises EvaluationError where the runs share no question, RunDirError for one that was not evaluated.
    """
    loaded = [experiments.of_run(run_dir, recipe) for recipe, run_dir in runs]
    names = [experiment.name for experiment, _ in loaded]
    if len(set(names)) < len(names):  # folders of one name in different places
        loaded = [
            (experiments.renamed(experiment, str(run_dir.path)), base)
            for (experiment, base), (_, run_dir) in zip(loaded, runs, strict=True)
        ]
    baseline = next((base for _, base in loaded if base), None)
    first = runs[0][0]
    bootstrap = Bootstrap(first.evaluate.resamples, first.seed)
    result = experiments.build([experiment for experiment, _ in loaded], baseline, bootstrap)
    lead = f"{len(runs)} runs on {result['questions']:,} test questions that all of them answered."
    write_json(out / "comparison.json", result)
    write_text(out / "comparison.csv", experiments.as_csv(result))
    write_text(out / "comparison.html", experiments.as_html(result, "medtune comparison", lead))
    console = Console(highlight=False)
    console.print(experiments.show(result))
    for pair in result["pairs"]:
        found = experiments.improvement(pair[PRIMARY])
        console.print(f"{pair['first']} → {pair['second']}: ROUGE-L {found}", markup=False, soft_wrap=True)
    console.print(f"Page: {out / 'comparison.html'}", markup=False, soft_wrap=True)
    return result
