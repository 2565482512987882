"""The data card: what went in, what was dropped and why, how it was split, and how much of the test training shows.

`data_card.json`, flat on purpose:
  sources         list: path, layout, revision, commit, licences {name: conversations}, files, rows, bad_rows,
                  conversations
  bad_rows        {count, examples: [{file, row, text}]}
  dropped         list: reason, count, example {file, row, text}
  conversations   how many are in the three splits together
  splits          {train | validation | test | test_seen: {conversations, groups, share}}; the last where asked for
  leakage         {before | after | seen: {questions, answers, topics, measured}}: shares of the test conversations;
                  before = a random split of all rows, seen = of test_seen; null where nothing could be measured
  lengths         {prompt_words | answer_words: {mean, min, p5, p25, p50, p75, p95, p99, max}}
  answer_histogram {edges: n + 1 word counts, counts: n}
  question_types  {name: conversations}, most frequent first
  topics          {count, without, largest: [{topic, conversations}]}
"""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from medtune.data import split
from medtune.data.collect import Collected, SourceTally, read_at
from medtune.data.features import Features
from medtune.data.near import Ints, NearIndex
from medtune.data.sources import local_path
from medtune.recipe import Recipe

QUANTILES = {"min": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p99": 99, "max": 100}
EDGES = (0, 10, 25, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)
LARGEST_TOPICS = 20


def build_card(
    recipe: Recipe, collected: Collected, parts: split.Split, index: NearIndex, spool: IO[bytes]
) -> dict[str, Any]:
    """The card of one run; `index` holds the answers of all collected rows."""
    features, kept = collected.features, parts.kept
    random = split.random_sides(len(features), recipe.data.split)
    return {
        "sources": [_source(tally) for tally in collected.sources],
        "bad_rows": {
            "count": sum(tally.bad_rows for tally in collected.sources),
            "examples": [asdict(example) for tally in collected.sources for example in tally.bad_examples],
        },
        "dropped": [{"reason": reason, **asdict(dropped)} for reason, dropped in collected.dropped.items()],
        "conversations": int(kept.sum()),
        "splits": {name: _size(parts, code) for code, name in enumerate(split.written(recipe.data.split))},
        "leakage": {
            "before": _leakage(split.leakage(features, random, index)),
            "after": _leakage(split.leakage(features, parts.side, index)),
            "seen": _leakage(split.leakage(features, parts.side, index, split.TEST_SEEN)),
        },
        "lengths": {
            "prompt_words": _spread(features.prompt_words[kept]),
            "answer_words": _spread(features.answer_words[kept]),
        },
        "answer_histogram": _histogram(features.answer_words[kept]),
        "question_types": _question_types(collected, kept),
        "topics": _topics(features, kept, spool),
    }


def _source(tally: SourceTally) -> dict[str, Any]:
    return {
        "path": tally.source.path,
        "layout": tally.source.layout,
        "revision": tally.asked_for,
        "commit": tally.source.revision if local_path(tally.source) is None else None,
        "licences": dict(tally.licences),
        "files": len(tally.files),
        "rows": tally.rows,
        "bad_rows": tally.bad_rows,
        "conversations": tally.conversations,
    }


def _size(parts: split.Split, code: int) -> dict[str, Any]:
    rows = parts.side == code
    share = round(float(rows.sum() / parts.kept.sum()), 4)
    return {"conversations": int(rows.sum()), "groups": len(np.unique(parts.group[rows])), "share": share}


def _leakage(measured: split.Leakage | None) -> dict[str, Any] | None:
    return None if measured is None else asdict(measured)


def _question_types(collected: Collected, kept: NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(collected.features.question_type[kept], minlength=len(collected.question_types))
    named = [(name, int(count)) for name, count in zip(collected.question_types, counts, strict=True) if name and count]
    return dict(sorted(named, key=lambda item: -item[1]))


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
    broken = {
        "count": card["bad_rows"]["count"],
        "reason": "broken",
        "example": next(iter(card["bad_rows"]["examples"]), {}),
    }
    for item in [broken, *card["dropped"]]:
        if item["count"]:
            line = "{file}, row {row}: {text}".format(**item["example"])
            console.print(f"{item['count']:>8,}  dropped: {item['reason']} ({line})", markup=False, highlight=False)
    table = Table("split", "conversations", "topic groups", "share", title="Splits")
    for name, size in card["splits"].items():
        table.add_row(name, f"{size['conversations']:,}", f"{size['groups']:,}", f"{size['share']:.1%}")
    console.print(table)
    console.print(_leakage_table(card["leakage"]))


def _leakage_table(leakage: dict[str, Any]) -> Table:
    columns = {"before": "random split", "after": "this split", "seen": "test_seen: topics that training has"}
    columns = {key: title for key, title in columns.items() if key != "seen" or leakage[key]}
    table = Table("of the test conversations", *columns.values(), title="Leakage")
    for key, label in (
        ("questions", "question verbatim in train"),
        ("answers", "answer near-duplicated in train"),
        ("topics", "topic in train"),
    ):
        table.add_row(label, *(_percent(leakage[column], key) for column in columns))
    return table


def _percent(measured: dict[str, Any] | None, key: str) -> str:
    return "not measured" if measured is None or measured[key] is None else f"{measured[key]:.1%}"
