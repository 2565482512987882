"""The data card: what went in, what was dropped and why, how it was split, and how much of the test the training split shows.

`data_card.json`, flat on purpose:
  sources         list: path, layout, revision, commit, licence, files, rows, bad_rows, conversations
  bad_rows        {count, examples: [{file, row, problem}]}
  dropped         list: reason, count, example {file, row, text}
  conversations   how many are in the three splits together
  splits          {train | validation | test: {conversations, groups, share}}
  leakage         {before | after: {questions, answers, topics, measured}}: shares of the test conversations; before = a random
                  split of the same sizes; null where nothing could be measured
  lengths         {prompt_words | answer_words: {mean, min, p5, p25, p50, p75, p95, p99, max}}
  answer_histogram {edges: n + 1 word counts, counts: n}
  question_types  {name: conversations}, most frequent first
  topics          {count, without, largest: [{topic, conversations}]}
"""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from medtune.data import split
from medtune.data.collect import Collected, read_at
from medtune.data.features import Features
from medtune.data.near import Ints, NearIndex
from medtune.recipe import Recipe

FILE = "data_card.json"
QUANTILES = {"min": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p99": 99, "max": 100}
EDGES = (0, 10, 25, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)
LARGEST_TOPICS = 20


def build_card(
    recipe: Recipe, collected: Collected, features: Features, parts: split.Split, index: NearIndex, spool: IO[bytes]
) -> dict[str, Any]:
    """The card of `features`, the rows that were left after cleaning."""
    kept = parts.side != split.LEFT_OUT
    random = split.random_sides(features, parts, recipe.data.split.seed)
    types = np.bincount(features.question_type[kept], minlength=len(collected.question_types))
    by_frequency = np.argsort(-types, kind="stable")
    return {
        "sources": [
            {
                "path": t.source.path,
                "layout": t.source.layout,
                "revision": t.source.revision,
                "commit": t.commit,
                "licence": t.licence or "not stated",
                "files": len(t.files),
                "rows": t.rows,
                "bad_rows": t.bad_rows,
                "conversations": t.conversations,
            }
            for t in collected.sources
        ],
        "bad_rows": {
            "count": sum(t.bad_rows for t in collected.sources),
            "examples": [
                {"file": e.file, "row": e.row, "problem": e.text} for t in collected.sources for e in t.bad_examples
            ],
        },
        "dropped": [
            {"reason": reason, "count": d.count, "example": asdict(d.example)}
            for reason, d in collected.dropped.items()
        ],
        "conversations": int(kept.sum()),
        "splits": {name: _size(parts, code, int(kept.sum())) for code, name in enumerate(split.NAMES)},
        "leakage": {"before": _leakage(features, random, index), "after": _leakage(features, parts.side, index)},
        "lengths": {
            "prompt_words": _spread(features.prompt_words[kept]),
            "answer_words": _spread(features.answer_words[kept]),
        },
        "answer_histogram": _histogram(features.answer_words[kept]),
        "question_types": {
            collected.question_types[i]: int(types[i]) for i in by_frequency if types[i] and collected.question_types[i]
        },
        "topics": _topics(features, kept, spool),
    }


def _size(parts: split.Split, code: int, total: int) -> dict[str, Any]:
    rows = parts.side == code
    return {
        "conversations": int(rows.sum()),
        "groups": len(np.unique(parts.group[rows])),
        "share": round(float(rows.sum()) / total, 4),
    }


def _leakage(features: Features, side: Any, index: NearIndex) -> dict[str, Any] | None:
    measured = split.leakage(features, side, index)
    return None if measured is None else asdict(measured)


def _spread(words: Ints) -> dict[str, float]:
    values = np.percentile(words, list(QUANTILES.values()), method="nearest")
    return {
        "mean": round(float(words.mean()), 1),
        **{name: int(value) for name, value in zip(QUANTILES, values, strict=True)},
    }


def _histogram(words: Ints) -> dict[str, list[int]]:
    edges = [*EDGES, max(EDGES[-1] + 1, int(words.max()) + 1)]
    return {"edges": edges, "counts": np.histogram(words, edges)[0].tolist()}


def _topics(features: Features, kept: Any, spool: IO[bytes]) -> dict[str, Any]:
    rows = np.flatnonzero(kept & (features.topic != 0))
    _, first, counts = np.unique(features.topic[rows], return_index=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:LARGEST_TOPICS]
    return {
        "count": len(counts),
        "without": int(kept.sum()) - len(rows),
        "largest": [
            {"topic": read_at(spool, int(features.offset[rows[first[i]]])).topic, "conversations": int(counts[i])}
            for i in largest
        ],
    }


def show(card: dict[str, Any], console: Console | None = None) -> None:
    """Print what matters of a card: rows, drops, splits, and the leakage table."""
    console = console or Console()
    rows = sum(source["rows"] for source in card["sources"])
    console.print(
        f"{rows:,} rows -> {card['conversations']:,} conversations about {card['topics']['count']:,} topics",
        highlight=False,
    )
    if card["bad_rows"]["count"]:
        example = card["bad_rows"]["examples"][0]
        console.print(
            f"{card['bad_rows']['count']:,} broken rows skipped, such as {example['file']}, row {example['row']}: {example['problem']}",
            markup=False,
        )
    for item in card["dropped"]:
        example = item["example"]
        console.print(
            f"{item['count']:>8,}  dropped: {item['reason']} ({example['file']}, row {example['row']}: {example['text']})",
            markup=False,
            highlight=False,
        )
    table = Table("split", "conversations", "topic groups", "share", title="Splits")
    for name, size in card["splits"].items():
        table.add_row(name, f"{size['conversations']:,}", f"{size['groups']:,}", f"{size['share']:.1%}")
    console.print(table)
    console.print(_leakage_table(card["leakage"]))


def _leakage_table(leakage: dict[str, Any]) -> Table:
    table = Table("of the test conversations", "random split", "this split", title="Leakage")
    for key, label in (
        ("questions", "question verbatim in train"),
        ("answers", "answer near-duplicated in train"),
        ("topics", "topic in train"),
    ):
        table.add_row(label, *(_percent(leakage[column], key) for column in ("before", "after")))
    return table


def _percent(measured: dict[str, Any] | None, key: str) -> str:
    return "not measured" if measured is None or measured[key] is None else f"{measured[key]:.1%}"
