"""What the records of the systems add up to: counts, metrics with intervals, paired differences.

Covered: one system alone, and two systems on the questions measured in both. The primary metric was chosen before any
figure was seen and stands alone; all others are looked at together, so their p values are Holm's.
Not covered: measuring (`runner`, `speed`), what the numbers mean (`verdict`), showing them (`report`).
No measurement is None, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from medtune.evaluation.metrics import METRICS, PRIMARY, Metric
from medtune.evaluation.statistics import CONFIDENCE, Bootstrap, Difference, holm, wilson
from medtune.evaluation.systems import FLOORS
from medtune.types import Record, Status

STATUSES: tuple[Status, ...] = get_args(Status)


def counts(records: Sequence[Record]) -> dict[str, int]:
    """How many questions were asked and how they ended; `likelihood` counts the references measured."""
    statuses = Counter(record.status for record in records)
    measured = sum(record.likelihood is not None for record in records)
    return {"asked": len(records), **{status: statuses[status] for status in STATUSES}, "likelihood": measured}


def mean(score: str, records: Iterable[Record]) -> float | None:
    """The mean of one score over the records that have it."""
    values = [record.scores[score] for record in records if score in record.scores]
    return float(np.mean(values)) if values else None


def system_metrics(
    name: str, records: Sequence[Record], bootstrap: Bootstrap, metrics: Iterable[str] = METRICS
) -> dict[str, dict[str, float | None] | None]:
    """Each metric's value, interval and number of questions; None where it was not measured or does not apply."""
    values: dict[str, dict[str, float | None] | None] = {}
    for key in metrics:
        metric = METRICS[key]
        rows = {} if metric.models_only and name in FLOORS else _rows(metric, records)
        groups = [record.group for record in records if record.id in rows]
        columns = np.array(list(rows.values()), dtype=float)
        interval = wilson(columns, groups) if metric.is_rate else bootstrap.interval(columns, groups, metric.value)
        values[key] = {**asdict(interval), "questions": len(rows)} if interval else None
    return values


def paired(
    first: Sequence[Record], second: Sequence[Record], bootstrap: Bootstrap, metrics: Iterable[str] = METRICS
) -> dict[str, dict[str, Any] | None]:
    """Each metric's difference second - first over the questions measured in both, as `Difference` has it.

    `before` and `after` are the two values on those questions, `p_holm` is p corrected for the other metrics, and
    `direction` is `helped`, `worse` or `none`. None where no question was measured in both.
    """
    found = {key: _difference(METRICS[key], first, second, bootstrap) for key in metrics}
    others = {key: value["p"] for key, value in found.items() if value and METRICS[key].better and key != PRIMARY}
    corrected = holm({key: p for key, p in others.items() if p is not None})
    for key, value in found.items():
        if value:
            value["p_holm"] = corrected.get(key, value["p"] if key == PRIMARY else None)
            value["direction"] = direction(METRICS[key], value)
    return found


def _difference(
    metric: Metric, first: Sequence[Record], second: Sequence[Record], bootstrap: Bootstrap
) -> dict[str, Any] | None:
    before, after = _rows(metric, first), _rows(metric, second)
    shared = [record for record in first if record.id in before and record.id in after]
    columns = [np.array([rows[record.id] for record in shared], dtype=float) for rows in (before, after)]
    found: Difference | None = bootstrap.difference(
        columns[0], columns[1], [record.group for record in shared], metric.value
    )
    if found is None:
        return None
    values = {name: float(metric.value(array.sum(0))) for name, array in zip(("before", "after"), columns, strict=True)}
    return {**asdict(found), **values, "questions": len(shared)}


def _rows(metric: Metric, records: Sequence[Record]) -> dict[str, Sequence[float]]:
    return {record.id: columns for record in records if (columns := metric.columns(record)) is not None}


def direction(metric: Metric, difference: Mapping[str, Any]) -> str | None:
    """`helped` or `worse` where the interval leaves out 0 and p says so too, else `none`.

    None where the metric has no better side or nothing was resampled.
    """
    low, high, p = difference["low"], difference["high"], difference["p_holm"]
    if not metric.better or low is None or high is None or p is None:
        return None
    if low <= 0 <= high or p > 1 - CONFIDENCE:
        return "none"
    return "helped" if (low > 0) == (metric.better == "higher") else "worse"
