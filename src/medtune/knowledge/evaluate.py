"""How well an index answers a set of queries with graded judgments, each figure with its uncertainty.

Covered: avg@1, nDCG@10, MRR, recall@k and judged@k with 95 % intervals, the files of queries, judgments and hits.
Not covered: searching (`search`). A passage that nobody judged counts as wrong; judged@k says how many were judged.

    avg@1      mean grade of the first hit, on the judgments' own scale
    nDCG@10    discounted grades of the first ten hits, relative to the best order possible
    MRR        1 / rank of the first relevant hit among the first ten; relevant: at least half the highest grade
    recall@k   share of a query's relevant passages among the first k hits
    judged@k   share of the first k hits that were judged
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medtune.data.progress import bar
from medtune.errors import DataError, EvaluationError
from medtune.knowledge.index import Index
from medtune.knowledge.search import search
from medtune.run_dir import write_lines
from medtune.types import Hit

DEPTH = 10
RESAMPLES = 2000
Grades = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Figure:
    """A mean over `queries` queries and its 95 % bootstrap interval. None where no query could be measured."""

    mean: float | None
    low: float | None
    high: float | None
    queries: int


def evaluate(found: Mapping[str, Sequence[str]], grades: Grades, k: int = DEPTH) -> dict[str, Figure]:
    """The figures of `found` (ids of passages, best first, by query) against `grades` (by query and passage).

    A query without judgments is left out; one without a relevant passage has no recall, MRR or nDCG. Raises
    EvaluationError where no query has judgments.
    """
    judged = [query for query in found if grades.get(query)]
    if not judged:
        raise EvaluationError(
            f"None of the {len(found)} queries has a judgment. Their ids must be the same in both files; queries have "
            f"{', '.join(list(found)[:3])}, judgments {', '.join(list(grades)[:3])}."
        )
    highest = max(grade for query in judged for grade in grades[query].values())
    if highest <= 0:
        raise EvaluationError("No judgment has a grade above 0: nothing is relevant, so nothing can be measured.")
    columns: dict[str, list[float]] = defaultdict(list)
    for query in judged:
        for name, value in _measure(found[query], grades[query], highest / 2, k).items():
            columns[name].append(value)
    return {name: _figure(columns.get(name, [])) for name in ("avg@1", "nDCG@10", "MRR", f"recall@{k}", f"judged@{k}")}


def _measure(ids: Sequence[str], grades: Mapping[str, float], least: float, k: int) -> dict[str, float]:
    gains = [max(0.0, grades.get(name, 0.0)) for name in ids]
    measured = {
        "avg@1": gains[0] if gains else 0.0,
        f"judged@{k}": sum(name in grades for name in ids[:k]) / max(1, len(ids[:k])),
    }
    relevant = {name for name, grade in grades.items() if grade >= least}
    if relevant:
        ranks = (rank for rank, gain in enumerate(gains[:DEPTH], 1) if gain >= least)
        ideal = sorted(grades.values(), reverse=True)
        measured |= {
            "nDCG@10": _discounted(gains[:DEPTH]) / _discounted(ideal[:DEPTH]),
            "MRR": 1 / next(ranks, np.inf),
            f"recall@{k}": len(relevant & set(ids[:k])) / len(relevant),
        }
    return measured


def _discounted(gains: Iterable[float]) -> float:
    return float(sum(max(0.0, gain) / np.log2(rank + 1) for rank, gain in enumerate(gains, 1)))


def _figure(values: list[float]) -> Figure:
    if not values:
        return Figure(None, None, None, 0)
    own = np.array(values)
    draws = np.random.default_rng(0).integers(len(own), size=(RESAMPLES, len(own)))
    low, high = np.quantile(own[draws].mean(1), [0.025, 0.975])
    return Figure(float(own.mean()), float(low), float(high), len(own))


def search_all(index: Index, queries: Mapping[str, str], k: int) -> dict[str, list[Hit]]:
    """The `k` best hits of each query, by its id."""
    found = {}
    with bar("searching", len(queries)) as advance:
        for name, text in queries.items():
            found[name] = search(index, text, k)
            advance()
    return found


# Files ---------------------------------------------------------------------------------------------------------------


def read_queries(path: Path) -> dict[str, str]:
    """`{"id", "text"}` lines. Raises DataError for a broken line, or an id that stands there twice."""
    queries: dict[str, str] = {}
    for place, line in _lines(path):
        name, text = _field(place, line, "id", str), _field(place, line, "text", str)
        if name in queries:
            raise DataError(f"{place}: the query id {name!r} stands there twice. Give each query its own id.")
        queries[name] = text
    return queries


def read_judgments(path: Path) -> dict[str, dict[str, float]]:
    """`{"query", "passage", "grade"}` lines. Raises DataError for a broken line."""
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    for place, line in _lines(path):
        query, passage = _field(place, line, "query", str), _field(place, line, "passage", str)
        grades[query][passage] = float(_field(place, line, "grade", (int, float)))
    return dict(grades)


def write_hits(path: Path, found: Mapping[str, Sequence[Hit]]) -> None:
    """A line `{"query", "hits": [{"passage", "score", "title", "section", "url"}]}` per query."""
    write_lines(path, ({"query": query, "hits": [as_row(hit) for hit in hits]} for query, hits in found.items()))


def as_row(hit: Hit) -> dict[str, Any]:
    """What a file of hits says of one."""
    passage = hit.passage
    facts = {"title": passage.title, "section": passage.section, "url": passage.url}
    return {"passage": passage.id, "score": round(hit.score, 6), **facts}


def _lines(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Expected a file of JSON lines in UTF-8.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not valid JSON ({error}). Expected one object per line.") from None
            if not isinstance(value, dict):
                raise DataError(f"{path}:{number}: {type(value).__name__}, expected an object.")
            yield f"{path}:{number}", value


def _field(place: str, line: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        there = ", ".join(line) or "none"
        wanted = "text" if kind is str else "a number"
        raise DataError(f"{place}: `{name}` is {json.dumps(value)[:40]}, expected {wanted}. Fields there: {there}.")
    return value


# What a person reads --------------------------------------------------------------------------------------------------


def show(figures: Mapping[str, Figure]) -> None:
    """One line per figure."""
    for name, figure in figures.items():
        if figure.mean is None:
            line = "not measurable: no query has a relevant passage"
        else:
            line = f"{figure.mean:.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.queries} queries"
        print(f"{name:<10} {line}")


def show_hits(hits: Sequence[Hit]) -> None:
    """Title, section, source and the beginning of each passage."""
    console = Console(highlight=False)
    if not hits:
        console.print("Nothing found.")
    for number, hit in enumerate(hits, 1):
        passage = hit.passage
        console.print(f"{number:>2}. {hit.score:.2f}  {passage.title}", style="bold", markup=False, soft_wrap=True)
        for line in (passage.section, " ".join(passage.text.split()[:40]) + " ...", passage.url, passage.id):
            if line:
                console.print(f"    {line}", markup=False, soft_wrap=True)
