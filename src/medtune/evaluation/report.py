"""report.html: one file that opens offline and says in its first sentence whether tuning helped.

Covered: everything shown comes from the summary and the records, so every figure can be found in
evaluation/summary.json. Not covered: computing anything. Model text and data are escaped by the template engine;
nothing in the page is a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from medtune.evaluation import charts, page
from medtune.evaluation.metrics import METRICS
from medtune.types import Record

CHARTS = ("rouge_l", "rouge_1", "rouge_2", "bleu", "perplexity", "bits_per_byte")
LOSSES = {"training": "loss", "validation": "validation_loss"}
SHOWN = ("base", "tuned")


def render(summary: Mapping[str, Any], records: Mapping[str, Sequence[Record]], side_by_side: int) -> str:
    """The page. `records` holds each system's records by question; the first `side_by_side` questions are shown."""
    return page.render(
        "report.html.j2",
        summary=summary,
        charts=metric_charts(summary["systems"]),
        losses=loss_charts(summary["tuning"]),
        lengths=length_chart(summary["data"]),
        answers=answers(records, side_by_side),
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


def length_chart(card: Mapping[str, Any] | None) -> Markup:
    """How long the answers of the data are."""
    histogram = (card or {}).get("answer_histogram")
    return charts.histogram("Answers by length", histogram["edges"], histogram["counts"]) if histogram else Markup("")


def answers(records: Mapping[str, Sequence[Record]], questions: int) -> list[dict[str, Any]]:
    """The first `questions` questions with the reference and what base and tuned answered."""
    shown = {name: {r.id: r for r in rows} for name, rows in records.items() if name in SHOWN}
    first = next(iter(records.values()), [])[:questions] if shown else []
    return [
        {"question": record.question, "reference": record.reference,
         "systems": {name: rows[record.id] for name, rows in shown.items() if record.id in rows}}
        for record in first
    ]  # fmt: skip
