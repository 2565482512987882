"""Experiments side by side: one table of options, losses, scores and costs, the untuned baseline first.

Covered: the figures on the questions that all share, paired improvements over the baseline, paired differences between
any two; the table in the terminal, as CSV and as a page. Not covered: running experiments (`medtune.sweep`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rich.table import Table

from medtune.errors import EvaluationError, RunDirError
from medtune.evaluation import charts, page, summary
from medtune.evaluation.metrics import PRIMARY
from medtune.evaluation.runner import record_of
from medtune.evaluation.statistics import Bootstrap
from medtune.evaluation.verdict import in_p
from medtune.recipe import Recipe
from medtune.run_dir import RunDir, read_json, read_lines
from medtune.types import Record

SCORES = (PRIMARY, "bleu", "perplexity", "bits_per_byte")
MANY = 6  # more experiments than this are compared with the best one alone, not each with each


@dataclass(frozen=True)
class Experiment:
    """One row: what was tuned, how that went, and the answers that it is judged by. The baseline has no recipe."""

    name: str
    records: Sequence[Record]
    recipe: Recipe | None = None
    tuning: Mapping[str, Any] | None = None
    note: str = ""


def of_run(run_dir: RunDir, recipe: Recipe) -> tuple[Experiment, Experiment | None]:
    """A run's tuned system as an experiment, and its base as the baseline. Raises RunDirError before the evaluation."""
    path = run_dir.evaluation / "records.jsonl"
    records = [record_of(line) for line in read_lines(path)] if path.exists() else []
    tuned, base = ([record for record in records if record.system == name] for name in ("tuned", "base"))
    if not tuned:
        raise RunDirError(f"{run_dir.path}: no answers of a tuned model. Evaluate it first: medtune run {run_dir.path}")
    tuning = read_json(run_dir.path / "tuning.json")
    return Experiment(run_dir.path.name, tuned, recipe, tuning), Experiment("untuned base", base) if base else None


def renamed(experiment: Experiment, name: str) -> Experiment:
    """The same experiment under another name."""
    return replace(experiment, name=name)


def build(experiments: Sequence[Experiment], baseline: Experiment | None, bootstrap: Bootstrap) -> dict[str, Any]:
    """What the table and the page show: `rows`, `pairs`, and how many `questions` all share that answered any.

    Raises EvaluationError where the experiments have no question in common.
    """
    everyone = [*([baseline] if baseline else []), *experiments]
    answered = [experiment for experiment in experiments if experiment.records]
    shared = _shared([experiment.records for experiment in everyone if experiment.records])
    if not shared:
        raise EvaluationError(
            "These runs have no test question in common, so nothing can be compared. Use the same data.sources and "
            "data.split in each, and questions that both were asked (evaluate.questions)."
        )
    kept = {e.name: [r for r in e.records if (r.id, r.question, r.reference) in shared] for e in everyone}
    rows = [_row(e, kept[e.name], kept[baseline.name] if baseline else None, bootstrap) for e in everyone]
    best = max(answered, key=lambda e: summary.mean(PRIMARY, kept[e.name]) or 0.0, default=None)
    chosen = list(combinations(answered, 2))
    if len(answered) > MANY:
        chosen = [pair for pair in chosen if best in pair]
    pairs = [
        {"first": one.name, "second": two.name, **_difference(kept[one.name], kept[two.name], bootstrap)}
        for one, two in chosen
    ]
    return {"questions": len(shared), "rows": rows, "pairs": pairs}


def _shared(everyone: Sequence[Sequence[Record]]) -> set[tuple[str, str, str]]:
    """The questions, with their references, that every experiment was asked."""
    asked = [{(record.id, record.question, record.reference) for record in records} for records in everyone]
    return set.intersection(*asked) if asked else set()


def _difference(first: Sequence[Record], second: Sequence[Record], bootstrap: Bootstrap) -> dict[str, Any]:
    return summary.paired(first, second, bootstrap, SCORES)


def _row(
    experiment: Experiment, records: Sequence[Record], baseline: Sequence[Record] | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    scores = summary.system_metrics("tuned", records, bootstrap)
    improvement = None
    if experiment.recipe and baseline and records:
        improvement = summary.paired(baseline, records, bootstrap, (PRIMARY,))[PRIMARY]
    return {
        "name": experiment.name,
        "note": experiment.note,
        **_options(experiment.recipe),
        **_training(experiment.tuning),
        **{key: scores[key] for key in SCORES},
        "improvement": improvement,
    }


def _options(recipe: Recipe | None) -> dict[str, Any]:
    if recipe is None:
        names = ("base", "method", "learning_rate", "batch_size", "accumulation", "effective_batch", "epochs")
        return dict.fromkeys(names)
    tune, model = recipe.tune, recipe.model
    return {
        "base": model.base,
        "method": tune.method + (f" on {model.quantization}" if model.quantization != "none" else ""),
        "learning_rate": tune.peak_learning_rate,
        "batch_size": tune.batch_size,
        "accumulation": tune.accumulation,
        "effective_batch": tune.batch_size * tune.accumulation,
        "epochs": tune.epochs,
    }


def _training(tuning: Mapping[str, Any] | None) -> dict[str, Any]:
    tuning = tuning or {}
    losses = [entry["loss"] for entry in tuning.get("history", ()) if "loss" in entry]
    tenth = losses[-max(1, len(losses) // 10) :]
    return {
        **({"epochs": tuning["epochs"]} if "epochs" in tuning else {}),  # as it came, where updates were limited
        "training_loss": sum(tenth) / len(tenth) if tenth else None,
        "validation_loss": tuning.get("best_validation_loss"),
        "parameters_trainable": tuning.get("parameters_trainable"),
        "peak_memory_bytes": tuning.get("peak_memory_bytes"),
        "minutes": tuning["seconds"] / 60 if "seconds" in tuning else None,
    }


# How it is shown ------------------------------------------------------------------------------------------------------

Column = tuple[str, str, Callable[[Mapping[str, Any]], str]]


def _plain(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: page.plain(row[key])


def _value(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: page.number(row[key]["value"] if row[key] else None, key)


COLUMNS: tuple[Column, ...] = (
    ("experiment", "name", _plain("name")),
    ("method", "method", _plain("method")),
    ("learning rate", "learning_rate", _plain("learning_rate")),
    ("batch", "batch_size", _plain("batch_size")),
    ("accumulation", "accumulation", _plain("accumulation")),
    ("effective batch", "effective_batch", _plain("effective_batch")),
    ("epochs", "epochs", _plain("epochs")),
    ("training loss", "training_loss", lambda row: page.number(row["training_loss"])),
    ("validation loss", "validation_loss", lambda row: page.number(row["validation_loss"])),
    ("perplexity", "perplexity", _value("perplexity")),
    ("bits per byte", "bits_per_byte", _value("bits_per_byte")),
    ("BLEU", "bleu", _value("bleu")),
    ("ROUGE-L", PRIMARY, _value(PRIMARY)),
    ("trained parameters", "parameters_trainable", lambda row: page.in_count(row["parameters_trainable"])),
    ("peak memory", "peak_memory_bytes", lambda row: page.in_bytes(row["peak_memory_bytes"])),
    ("minutes", "minutes", lambda row: page.number(row["minutes"], "bleu")),
)
SHOWN = ("name", "validation_loss", "bits_per_byte", PRIMARY)


def show(result: Mapping[str, Any]) -> Table:
    """The table for a terminal: the columns that decide; all of them stand in the page and the CSV."""
    columns = [column for column in COLUMNS if column[1] in SHOWN]
    table = Table(*(title for title, *_ in columns), "over the base (95 %)")
    for row in result["rows"]:
        found = row["improvement"]
        bounds = f" ({found['low']:+.3f} to {found['high']:+.3f})" if found and found["low"] is not None else ""
        gain = f"{found['value']:+.3f}{bounds}" if found else "–"
        table.add_row(*(text(row) for *_, text in columns), gain)
    table.columns[-1].no_wrap = True
    return table


def improvement(found: Mapping[str, Any] | None) -> str:
    """A paired difference in ROUGE-L as one reads it."""
    if not found:
        return "–"
    if found["low"] is None:
        return f"{found['value']:+.3f}"
    return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}, {in_p(found['p'])})"


def as_csv(result: Mapping[str, Any]) -> str:
    """One line per row with every figure; intervals as `_low` and `_high`."""
    lines = [_flat(row) for row in result["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key in (*SCORES, "improvement"):
            flat[key] = value and value["value"]
            flat |= {f"{key}_{bound}": value and value[bound] for bound in ("low", "high")}
        else:
            flat[key] = value
    return flat


def as_html(result: Mapping[str, Any], title: str, lead: str, conclusion: str = "") -> str:
    """The page; `lead` says what is compared, `conclusion` what follows."""
    tuned = [row for row in result["rows"] if row["improvement"]]
    forest = charts.forest("Improvement in ROUGE-L over the untuned base", {r["name"]: r["improvement"] for r in tuned})
    return page.render(
        "experiments.html.j2",
        result=result,
        title=title,
        lead=lead,
        conclusion=conclusion,
        columns=COLUMNS,
        improvement=improvement,
        forest=forest,
        primary=PRIMARY,
    )
