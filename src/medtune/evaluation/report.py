"""report.html: one file that opens offline and says in its first sentence whether tuning helped.

Covered: everything shown comes from the summary and the records, so every figure can be found in
evaluation/summary.json. Not covered: computing anything. Model text and data are escaped by the template engine;
nothing in the page is a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medtune.evaluation import charts
from medtune.evaluation.metrics import METRICS
from medtune.types import Record

CHARTS = ("rouge_l", "rouge_1", "rouge_2", "bleu", "perplexity", "bits_per_byte")
LOSSES = {"training": "loss", "validation": "validation_loss"}
SHOWN = ("base", "tuned")


def render(summary: Mapping[str, Any], records: Mapping[str, Sequence[Record]], side_by_side: int) -> str:
    """The page. `records` holds each system's records by question; the first `side_by_side` questions are shown."""
    environment = Environment(
        loader=PackageLoader("medtune.evaluation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number, bytes=in_bytes, seconds=in_seconds, count=in_count, share=share, plain=plain
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.globals.update(metrics=METRICS, figure=figure)
    source, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        style=Markup(source),
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
            drawn.append((key, charts.bars(METRICS[key].title, values, partial(number, key=key))))
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


def number(value: float | None, key: str = "") -> str:
    """A metric's value with its own number of decimals; a rate in per cent."""
    if value is None:
        return "–"
    metric = METRICS.get(key)
    return f"{value:.1%}" if metric and metric.is_rate else f"{value:,.{metric.digits if metric else 3}f}"


def figure(value: Mapping[str, Any] | None, key: str, is_difference: bool = False) -> Markup:
    """A table cell with a value and its interval; a difference carries its sign and its direction's colour."""
    if value is None:
        return Markup('<td class="muted">–</td>')
    sign = "+" if is_difference and value["value"] > 0 else ""
    has_interval = value["low"] is not None
    bounds = f"{number(value['low'], key)} to {number(value['high'], key)}" if has_interval else "no interval"
    cell = Markup('<td class="{}">{}<br><small>{}</small></td>')
    return cell.format(value.get("direction") or "", sign + number(value["value"], key), bounds)


def plain(value: Any) -> str:
    """A setting or a figure as it is, without the digits that nobody reads."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def in_count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share of one in per cent."""
    return "not measured" if value is None else f"{value:.1%}"


def in_bytes(value: float | None) -> str:
    """Bytes in the unit that fits."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.2f} GB"


def in_seconds(value: float | None) -> str:
    """Seconds in the unit that fits."""
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:,.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"
