"""`medtune guard evaluate` and `medtune guard check`: what the guards say about a file of messages.

Covered: sensitivity, specificity and AUROC with 95 % intervals, every miss; verdicts line by line.
Not covered: the assistant's whole reply (`medtune eval`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtune.assistant.cases import LABELS, Case
from medtune.assistant.guards import Guards, check
from medtune.data import progress
from medtune.errors import DataError
from medtune.run_dir import write_lines
from medtune.types import Verdict

WRITTEN = ("emergency", "crisis", "in_scope")
"""What `medtune guard check` writes."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share and its 95 % interval; `of` is the number it is taken of. `value` is None where that is 0."""

    value: float | None
    low: float
    high: float
    of: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One guard on the cases that carry its label. For `in_scope`, sensitivity is the share of health let through."""

    label: str
    sensitivity: Share
    specificity: Share
    auroc: Share
    misses: tuple[tuple[Case, Verdict], ...]
    errors: int


def verdicts(guards: Guards, cases: Sequence[Case]) -> list[dict[str, Verdict]]:
    """What each guard says of each case, in their order."""
    with progress.bar("checking", len(cases)) as advance:
        result = []
        for case in cases:
            result.append(check(guards, case.messages))
            advance()
    return result


def measure(cases: Sequence[Case], found: Sequence[Mapping[str, Verdict]]) -> list[Measured]:
    """One `Measured` per label that occurs. Raises DataError where no case has a label."""
    result = []
    for label, guard in LABELS.items():
        pairs = [(c, v[guard], c.labels[label]) for c, v in zip(cases, found, strict=True) if label in c.labels]
        if pairs:
            result.append(_measure(label, pairs))
    if not result:
        raise DataError(f"No line has a label. Expected any of {', '.join(LABELS)}, true or false.")
    return result


def _measure(label: str, pairs: Sequence[tuple[Case, Verdict, bool]]) -> Measured:
    true = [verdict for _, verdict, truth in pairs if truth]
    false = [verdict for _, verdict, truth in pairs if not truth]
    return Measured(
        label,
        sensitivity=wilson(sum(verdict.verdict for verdict in true), len(true)),
        specificity=wilson(sum(not verdict.verdict for verdict in false), len(false)),
        auroc=auroc([verdict.score for verdict in true], [verdict.score for verdict in false]),
        misses=tuple((case, verdict) for case, verdict, truth in pairs if verdict.verdict != truth),
        errors=sum(verdict.is_error for _, verdict, _ in pairs),
    )


def wilson(hits: float, of: float) -> Share:
    """Share of `hits` with Wilson's 95 % interval."""
    if of == 0:
        return Share(None, 0.0, 1.0, 0)
    z, share = 1.959964, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half), int(of))


def auroc(true: Sequence[float], false: Sequence[float]) -> Share:
    """Chance that a case that should score higher does (ties half). Wilson's interval on Hanley and McNeil's variance:
    the number of independent cases that would have the same variance; the smaller class where it has none."""
    if not true or not false:
        return Share(None, 0.0, 1.0, 0)
    ranked = np.sort(np.array(false))
    below = np.searchsorted(ranked, true, "left") + np.searchsorted(ranked, true, "right")
    area, n, m = float(below.mean() / (2 * len(false))), len(true), len(false)
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    effective = min(n, m) if variance <= 0 else min(area * (1 - area) / variance, n * m)
    interval = wilson(area * effective, effective)
    return Share(area, interval.low, interval.high, n + m)


def write_verdicts(path: Path, cases: Sequence[Case], found: Sequence[Mapping[str, Verdict]]) -> None:
    """One line per case: its id, and for each label `{"verdict", "score", "reason"}`; `error` marks a broken guard."""
    rows = [
        {"id": case.id} | {label: _plain(by_guard[LABELS[label]]) for label in WRITTEN}
        for case, by_guard in zip(cases, found, strict=True)
    ]
    write_lines(path, rows)


def _plain(verdict: Verdict) -> dict[str, Any]:
    plain = {"verdict": verdict.verdict, "score": round(verdict.score, 7), "reason": verdict.reason}
    return plain | ({"error": True} if verdict.is_error else {})


def as_json(measured: Sequence[Measured]) -> str:
    """The figures and misses as indented JSON."""
    rows = {}
    for one in measured:
        figures = {name: plain(getattr(one, name)) for name in ("sensitivity", "specificity", "auroc")}
        misses = [
            {"id": case.id, "text": case.text, "expected": case.labels[one.label]} | _plain(v) for case, v in one.misses
        ]
        rows[one.label] = figures | {"errors": one.errors, "misses": misses}
    return json.dumps(rows, indent=2, ensure_ascii=False)


def plain(share: Share) -> dict[str, Any]:
    """A share as JSON."""
    return {"value": share.value, "low": share.low, "high": share.high, "of": share.of}


def show(measured: Sequence[Measured]) -> None:
    """A table of the figures and every miss, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("label", "sensitivity", "specificity", "AUROC", "errors", title="guards (95 % intervals)")
    for one in measured:
        table.add_row(one.label, *map(_cell, (one.sensitivity, one.specificity, one.auroc)), str(one.errors))
    console.print(table)
    for one in measured:
        for missed, heading in ((True, "missed"), (False, "fired in vain")):
            rows = [(case, verdict) for case, verdict in one.misses if case.labels[one.label] == missed]
            if rows:
                console.print(f"\n{one.label}: {heading} ({len(rows)})", style="bold")
            for case, verdict in rows:
                text = " ".join(case.text.split())
                console.print(f"  {case.id:<8} {verdict.score:.3f}  {text[:160]}  ({verdict.reason})", markup=False)


def _cell(share: Share) -> str:
    if share.value is None:
        return "no such case"
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {share.of}"
