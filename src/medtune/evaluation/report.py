"""report.html: one file that opens offline and says in its first sentence whether tuning helped.

Covered: everything shown comes from the summary and the records, so every figure can be found in
evaluation/summary.json; all answers to search, filter and sort. Not covered: computing anything. Model text and data
are escaped by the template engine, or stand in a JSON block that a script of ours shows as text; the page's security
policy lets no other script run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from medtune.evaluation import charts, page
from medtune.evaluation.metrics import METRICS, PRIMARY
from medtune.evaluation.neighbours import NEAR
from medtune.evaluation.systems import FLOORS
from medtune.types import Record

CHARTS = ("rouge_l", "rouge_1", "rouge_2", "bleu", "perplexity", "bits_per_byte")
LOSSES = {"training": "loss", "validation": "validation_loss"}
SHOWN = ("base", "tuned")


def render(
    summary: Mapping[str, Any],
    records: Mapping[str, Sequence[Record]],
    side_by_side: int,
    likeness: Mapping[str, float] | None = None,
) -> str:
    """The page. `records` holds each system's records by question; the first `side_by_side` questions are printed.

    `likeness` says how near each question, by its id, comes to a training question.
    """
    return page.render(
        "report.html.j2",
        summary=summary,
        charts=metric_charts(summary["systems"]),
        losses=loss_charts(summary["tuning"]),
        tuned=tuning_facts(summary["tuning"]),
        lengths=length_chart(summary["data"]),
        answers=answers(records, side_by_side),
        browsing=page.as_json(browsing(records, likeness or {})) if side_by_side else "",
        script=page.asset("report.js"),
        neighbours=summary.get("neighbours"),
    )


def metric_charts(systems: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """(metric, bars) for every metric that at least one system has."""
    drawn = []
    for key in CHARTS:
        values = {name: system["metrics"][key] for name, system in systems.items()}
        if METRICS[key].models_only:
            values = {name: value for name, value in values.items() if name in SHOWN}
        if any(values.values()):
            drawn.append((key, charts.bars(METRICS[key].title, values, partial(page.number, key=key))))
    return drawn


def loss_charts(tuning: Mapping[str, Any] | None) -> list[Markup]:
    """Loss over updates, and ROUGE-L of the sample answers where it was taken."""
    history = tuning["history"] if tuning else []

    def line(key: str) -> list[charts.Point]:
        return [(row["step"], row[key]) for row in history if row.get(key) is not None]

    losses = {name: line(key) for name, key in LOSSES.items() if line(key)}
    samples = {"sample answers, ROUGE-L": line("sample_rouge_l")} if line("sample_rouge_l") else {}
    return [
        charts.curves(title, "updates", lines) for title, lines in (("Loss", losses), ("ROUGE-L", samples)) if lines
    ]


def tuning_facts(tuning: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What happened in the tuning, in words."""
    tuning = tuning or {}
    facts = [(label, show(tuning[key])) for key, label, show in TUNING if tuning.get(key) is not None]
    rows = tuning.get("rows", {})
    return facts + [(label, page.in_count(rows[key])) for key, label in ROWS if rows.get(key) is not None]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


TUNING: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("method", "method", str),
    ("parameters_total", "parameters", page.in_count),
    ("parameters_trainable", "trained parameters", page.in_count),
    ("steps", "updates", page.in_count),
    ("epochs", "epochs", page.plain),
    ("seconds", "training time", page.in_seconds),
    ("wall_seconds", "time with evaluations", page.in_seconds),
    ("tokens", "tokens read", page.in_count),
    ("supervised_tokens", "tokens learnt from", page.in_count),
    ("tokens_per_second", "tokens per second", page.in_count),
    ("peak_memory_bytes", "peak memory", page.in_bytes),
    ("base_validation_loss", "validation loss before", page.number),
    ("best_validation_loss", "best validation loss", page.number),
    ("best_step", "reached after updates", page.in_count),
    ("device", "device", str),
    ("dtype", "number format", str),
    ("is_packed", "documents packed without padding", _yes),
    ("is_fast_loss", "loss computed on answers alone", _yes),
)
ROWS = (("used", "conversations used"), ("truncated", "of them cut"), ("dropped", "dropped, nothing to learn"))


def length_chart(card: Mapping[str, Any] | None) -> Markup:
    """How long the answers of the data are."""
    histogram = (card or {}).get("answer_histogram")
    return charts.histogram("Answers by length", histogram["edges"], histogram["counts"]) if histogram else Markup("")


def browsing(records: Mapping[str, Sequence[Record]], likeness: Mapping[str, float]) -> dict[str, Any] | None:
    """Every question with every system's answer, for the script; None without a model to look at."""
    if not set(SHOWN) & set(records):
        return None
    by_id = {name: {record.id: record for record in rows} for name, rows in records.items()}
    items = [
        {
            "number": number,
            "question": first.question,
            "reference": first.reference,
            "near": likeness[first.id] >= NEAR if first.id in likeness else None,
            "answers": {name: _shown(rows[first.id]) for name, rows in by_id.items() if first.id in rows},
        }
        for number, first in enumerate(next(iter(records.values())), 1)
    ]
    return {"systems": list(records), "shown": [name for name in records if name not in FLOORS], "items": items}


def _shown(record: Record) -> dict[str, Any]:
    return {
        "text": record.completion.text or record.completion.error,
        "score": record.scores.get(PRIMARY),
        "status": record.status,
        "finish": record.completion.finish_reason,
    }


def answers(records: Mapping[str, Sequence[Record]], questions: int) -> list[dict[str, Any]]:
    """The first `questions` questions with the reference and what base and tuned answered."""
    shown = {name: {r.id: r for r in rows} for name, rows in records.items() if name in SHOWN}
    first = next(iter(records.values()), [])[:questions] if shown else []
    return [
        {"question": record.question, "reference": record.reference,
         "systems": {name: rows[record.id] for name, rows in shown.items() if record.id in rows}}
        for record in first
    ]  # fmt: skip
